"""The seven kinds of models: each is told by its keys, takes its own alone, and is found again in a stored suite."""

import pytest
from pydantic import TypeAdapter, ValidationError

from sparring.models.model_spec import KINDS, MODEL_KEYS, ModelSpec, model_spec
from sparring.models.prepared.kinds.table import KINDS as PREPARED
from sparring.models.prepared.kinds.table import kind_of

EXAMPLES = {
    "architecture": {"architecture": "cnn", "framework": "keras", "train": {"epochs": 2}},
    "weights": {"architecture": "cnn", "weights": "cnn.pt"},
    "object": {"object": "mine:net", "weights": "net.pt", "mean": [0.5]},
    "onnx": {"onnx": "net.onnx", "input_range": [0, 255]},
    "export": {"export": "net"},
    "convert": {"convert": "net", "framework": "torch"},
    "ensemble": {"ensemble": ["a", "b"], "combine": "vote"},
}
RUNTIMES = {
    "architecture": "keras-tensorflow",
    "weights": "torch",
    "object": "torch",
    "onnx": "onnx",
    "export": "onnx",
    "convert": "torch",
    "ensemble": "ensemble",
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_keys_tell_the_kind(kind):
    spec = model_spec(name="m", **EXAMPLES[kind])
    assert type(spec) is KINDS[kind]
    assert (spec.kind, spec.runtime) == (kind, RUNTIMES[kind])
    assert kind_of(spec) is PREPARED[KINDS[kind]]
    assert kind_of(spec).work(spec)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_stored_model_has_the_keys_of_all_kinds_and_is_read_as_it_was(kind):
    """Suites were stored with every key, those of other kinds at their defaults."""
    spec = model_spec(name="m", **EXAMPLES[kind])
    defaults = {"input_range": [0.0, 1.0], "channel_order": "rgb", "output": "logits", "combine": "probabilities"}
    stored = {**dict.fromkeys(MODEL_KEYS), **defaults, **spec.model_dump(mode="json")}
    assert model_spec(stored) == spec


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "give exactly one of"),
        ({"object": "mine:net", "onnx": "net.onnx"}, "give exactly one of"),
        ({"architecture": "cnn", "weights": "cnn.pt", "train": {}}, "give either `train` or `weights`"),
        ({"onnx": "net.onnx", "train": {}}, "`train` needs an `architecture`"),
        ({"architecture": "cnn", "members": 2}, "`members` needs an `architecture` and `train`"),
        ({"object": "mine:net", "search": {"over": {"lr": [1]}}}, "`search` needs an `architecture` and `train`"),
        ({"convert": "net"}, "`convert` needs a `framework`"),
        ({"ensemble": ["a", "b"], "framework": "torch"}, "leave `framework` out"),
        ({"ensemble": ["a", "b"], "std": [1.0]}, "std: `ensemble` takes it from 'a' and 'b'"),
        ({"architecture": "cnn", "combine": "vote"}, "`combine` is for"),
        ({"convert": "net", "framework": "torch", "weights": "x.pt"}, "weights: others' are taken"),
        ({"export": "net", "weights": "x.pt"}, "an ONNX file has its own"),
    ],
)
def test_a_key_of_another_kind_is_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        model_spec(name="m", **keys)


def test_the_schema_offers_each_kind_its_own_keys():
    schema = TypeAdapter(ModelSpec).json_schema()
    offered = [schema["$defs"][choice["$ref"].rpartition("/")[2]] for choice in schema["oneOf"]]
    assert [set(one["properties"]) for one in offered] == [set(kind.model_fields) for kind in KINDS.values()]
    assert all(kind in one["required"] for kind, one in zip(KINDS, offered, strict=True))
    assert not any(one["additionalProperties"] for one in offered)
