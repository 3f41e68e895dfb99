"""What a suite says of a model: seven kinds, told apart by the key that says where the model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from sparring.models.spec import DefenseSpec, SearchSpec, Spec, TrainSpec, as_chain

Framework = Literal["torch", "keras", "keras-tensorflow", "keras-torch", "keras-jax", "onnx"]
Combine = Literal["probabilities", "logits", "vote"]
_FRAMEWORK = "keras is keras-tensorflow"


class Model(Spec):
    """The keys that every kind of model has."""

    kind: ClassVar[str]
    """the key that says where the model comes from"""

    name: str
    defenses: tuple[DefenseSpec, ...] = Field((), description="defenses of this model, in order")
    defended_as: str | None = Field(None, description="what these are called in tables; their own names when absent")
    attack: bool = Field(True, description="false: it is only a source, a member or a target of others")
    data: tuple[str, ...] | None = Field(None, min_length=1, description="only on these data sets, instead of all")

    @field_validator("defenses", mode="before")
    @classmethod
    def _chain(cls, value: Any) -> Any:
        return as_chain(value)

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():
            raise ValueError("a model needs a printable name")
        return value

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the models of the suite that this one is made of."""
        return ()

    @property
    def defense(self) -> str:
        """What the defenses are called in tables: joined by `` + ``; ``none`` without any."""
        return self.defended_as or " + ".join(spec.label for spec in self.defenses) or "none"

    @property
    def runtime(self) -> str:
        """``torch``, ``keras-tensorflow``, ``keras-torch``, ``keras-jax``, ``onnx`` or ``ensemble``.

        For an ``object`` it is a guess.
        """
        return runtime_of(getattr(self, "framework", None))


def runtime_of(framework: str | None) -> str:
    """The runtime that a ``framework`` of a suite means; torch where there is none."""
    return "keras-tensorflow" if framework == "keras" else framework or "torch"


class OwnInput(Model):
    """The keys of a model that says itself what it takes and gives."""

    input_range: tuple[float, float] = Field((0.0, 1.0), description="what the model takes for a pixel of 0 and of 1")
    mean: tuple[float, ...] | None = Field(None, description="subtracted per channel, in units of the input range")
    std: tuple[float, ...] | None = Field(None, description="divided by per channel, in units of the input range")
    channel_order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["channels-first", "channels-last"] | None = Field(
        None, description="of the model's input; by framework when absent"
    )
    output: Literal["logits", "probabilities"] = Field(
        "logits", description="probabilities: a final softmax is taken off"
    )


OPTIONS = tuple(key for key in OwnInput.model_fields if key not in Model.model_fields)
"""The keys of a model that change what the adapter computes: keyword arguments of ``wrap``."""


class TrainedModel(OwnInput):
    """An architecture that is trained here, or has its initial weights."""

    kind: ClassVar[str] = "architecture"

    architecture: str = Field(description="`sparring list models` lists them")
    framework: Framework | None = Field(None, description=_FRAMEWORK)
    train: TrainSpec | None = None
    search: SearchSpec | None = Field(None, description="hyperparameters to try before the training")
    members: int | None = Field(
        None, ge=2, description="so many networks, trained with the seeds `train.seed` and on, decided together"
    )
    combine: Combine = Field(
        "probabilities",
        description="of `members`: the mean of their probabilities or logits, or their majority vote",
    )

    @model_validator(mode="after")
    def _trained(self) -> TrainedModel:
        if self.members and not self.train:
            raise ValueError("`members` needs an `architecture` and `train`: its members are trained one by one")
        if self.search and not self.train:
            raise ValueError("`search` needs an `architecture` and `train`")
        if self.combine != "probabilities" and not self.members:
            raise ValueError("`combine` is for an `ensemble` or `members`")
        return self


class WeightsModel(OwnInput):
    """Weights that are there: in an architecture, or in a file that holds the whole network."""

    kind: ClassVar[str] = "weights"

    weights: str = Field(
        description="a file (.pt, .pth, .safetensors, .keras, .weights.h5, .npz), a folder under SPARRING_DATA, "
        "or a torchvision weights enum",
    )
    architecture: str | None = Field(
        None,
        description="`sparring list models` lists them; a .keras file, and one of `sparring convert`, has its own",
    )
    framework: Framework | None = Field(None, description=_FRAMEWORK)

    @property
    def runtime(self) -> str:
        """``torch``, ``keras-tensorflow``, ``keras-torch`` or ``keras-jax``."""
        return runtime_of(self.framework or ("keras" if self.weights.endswith(".keras") else None))


class ObjectModel(OwnInput):
    """A model of the user's own code."""

    kind: ClassVar[str] = "object"

    object: str = Field(
        description="package.module:name, a torch module or Keras model, or a function that returns one"
    )
    weights: str | None = Field(None, description="a file of weights that are put into it")
    framework: Framework | None = Field(None, description="it says this by itself; what is said here is checked")


class OnnxModel(OwnInput):
    """An ONNX file."""

    kind: ClassVar[str] = "onnx"

    onnx: str = Field(description="an ONNX file")
    framework: Framework | None = Field(None, description="onnx, whatever is said")

    @property
    def runtime(self) -> str:
        """``onnx``."""
        return "onnx"


class ExportModel(Model):
    """Another model of the suite as an ONNX file."""

    kind: ClassVar[str] = "export"

    export: str = Field(description="the name of another model of this suite, exported to ONNX")
    framework: Framework | None = Field(None, description="onnx, whatever is said")

    @property
    def runtime(self) -> str:
        """``onnx``."""
        return "onnx"

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of the model that is exported."""
        return (self.export,)


class ConvertModel(Model):
    """Another model of the suite, moved into a framework."""

    kind: ClassVar[str] = "convert"

    convert: str = Field(
        description="the name of another model of this suite, whose weights are moved into `framework`"
    )
    framework: Framework | None = Field(None, description="into which it is moved")

    @model_validator(mode="after")
    def _to_a_framework(self) -> ConvertModel:
        if self.framework in (None, "onnx"):
            raise ValueError("`convert` needs a `framework` other than onnx (for that there is `export`)")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The name of the model that is converted."""
        return (self.convert,)


class EnsembleModel(Model):
    """Other models of the suite, decided together."""

    kind: ClassVar[str] = "ensemble"

    ensemble: tuple[str, ...] = Field(
        min_length=2, description="the names of other models of this suite, decided together"
    )
    combine: Combine = Field(
        "probabilities", description="the mean of its members' probabilities or logits, or their majority vote"
    )

    @property
    def runtime(self) -> str:
        """``ensemble``."""
        return "ensemble"

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of its members."""
        return self.ensemble


KINDS: dict[str, type[Model]] = {
    kind.kind: kind
    for kind in (TrainedModel, WeightsModel, ObjectModel, OnnxModel, ExportModel, ConvertModel, EnsembleModel)
}
MODEL_KEYS = tuple(dict.fromkeys(key for kind in KINDS.values() for key in kind.model_fields))
"""The keys of all kinds."""
_DEFAULTS = {
    key: field.get_default() for kind in KINDS.values() for key, field in kind.model_fields.items() if field.default
}


def _kind(value: Any) -> str | None:
    """The kind of a model: the key that says where it comes from."""
    if isinstance(value, Model):
        return value.kind
    keys = [key for key in ("object", "onnx", "export", "convert", "ensemble") if value.get(key)]
    if value.get("architecture"):
        keys.append("weights" if value.get("weights") and not keys else "architecture")
    elif value.get("weights") and not keys:
        keys.append("weights")
    return keys[0] if len(keys) == 1 else None


def _own_keys(value: Any) -> Any:
    """The keys of the model's own kind; those of others that say nothing are dropped, for a stored suite has all keys.

    Raises ``ValueError`` where it is of no kind or of several, and for a key that is not for its kind.
    """
    if not isinstance(value, Mapping):
        return value
    kind = _kind(value)
    if kind is None:
        raise ValueError(
            "give exactly one of `architecture`, `object`, `onnx`, `export`, `convert`, `ensemble` "
            "(or `weights` alone for a .keras file, or one of `sparring convert`)"
        )
    own = {}
    for key, given in value.items():
        if key in KINDS[kind].model_fields or key not in MODEL_KEYS:
            own[key] = given
        elif given is not None and (tuple(given) if isinstance(given, list) else given) != _DEFAULTS.get(key):
            raise ValueError(_not_for(key, kind, value))
    return own


def _not_for(key: str, kind: str, value: Mapping[str, Any]) -> str:
    """Why a model of that kind can't have the key."""
    if key in OPTIONS:
        names = value[kind] if kind == "ensemble" else [value[kind]]
        return f"{key}: `{kind}` takes it from {' and '.join(map(repr, names))}"
    return {
        "train": "give either `train` or `weights`" if value.get("architecture") else "`train` needs an `architecture`",
        "members": "`members` needs an `architecture` and `train`: its members are trained one by one",
        "search": "`search` needs an `architecture` and `train`",
        "framework": "an `ensemble` has the frameworks of its members: leave `framework` out",
        "combine": "`combine` is for an `ensemble` or `members`",
        "weights": "weights: an ONNX file has its own" if kind in ("onnx", "export") else "weights: others' are taken",
    }[key]


ModelSpec: TypeAlias = Annotated[
    Annotated[TrainedModel, Tag("architecture")]
    | Annotated[WeightsModel, Tag("weights")]
    | Annotated[ObjectModel, Tag("object")]
    | Annotated[OnnxModel, Tag("onnx")]
    | Annotated[ExportModel, Tag("export")]
    | Annotated[ConvertModel, Tag("convert")]
    | Annotated[EnsembleModel, Tag("ensemble")],
    Discriminator(_kind),
    BeforeValidator(_own_keys),
]
_READER: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)


def model_spec(content: Mapping[str, Any] | None = None, /, **keys: Any) -> ModelSpec:
    """The model that these keys describe, of the kind that they say. Raises pydantic's ``ValidationError``."""
    return _READER.validate_python({**(content or {}), **keys})
