"""The official ONNX node tests for every operator in the table, and its derivatives against finite differences.

The cases come with the onnx package, and ``node_skips.yaml`` lists those that can't pass, by pattern, with one
reason for each. They are run one after another in this process: there are some 1,700.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx.backend.test.loader import load_model_tests
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from torch import Tensor

from sparring.adapters.errors import NotSupported
from sparring.adapters.onnx.graph import Graph, evaluate, read_graph
from sparring.adapters.onnx.operators.table import OPERATORS
from sparring.adapters.onnx.read import tensor

SKIPS = yaml.safe_load(Path(__file__).with_name("node_skips.yaml").read_text())


@cache
def cases() -> Mapping[str, Any]:
    """Those of which every operator is in the table, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases are made there and then, with infinities on purpose
        return {case.name: case for case in load_model_tests(kind="node") if in_the_table(case.model.graph)}


def in_the_table(graph: onnx.GraphProto) -> bool:
    graphs = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return all(n.op_type in OPERATORS.get(n.domain, {}) for n in graph.node) and all(map(in_the_table, graphs))


@cache
def failures() -> Mapping[str, str]:
    """Name of the case -> how it fails."""
    messages = {}
    for name, case in cases().items():
        try:
            check(case)
        except (AssertionError, NotSupported, TypeError) as exc:
            messages[name] = f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
    return messages


def check(case: Any) -> None:
    graph = read_graph(case.model)
    if graph.missing:
        raise NotSupported(str(graph.missing[0]))
    for arrays_in, expected in case.data_sets:
        inputs = {value.name: torch_of(x) for value, x in zip(graph.inputs, arrays_in, strict=True)}
        before = {name: x.clone() for name, x in inputs.items() if isinstance(x, Tensor)}
        values = evaluate(graph, inputs)
        assert len(values) == len(expected)
        for mine, theirs in zip(values.values(), expected, strict=True):
            compare(mine, theirs, case)
        for name, x in before.items():
            assert torch.equal(x.nan_to_num(), inputs[name].nan_to_num()), "an input was written to"


def compare(mine: Any, theirs: Any, case: Any) -> None:
    if isinstance(theirs, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            compare(one, other, case)
        return
    expected = torch_of(theirs)
    if expected is None:
        assert mine is None
        return
    assert mine.dtype == expected.dtype
    assert mine.shape == expected.shape
    if mine.dtype == torch.bfloat16:  # NumPy has none
        mine, expected = mine.float(), expected.float()
    np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=case.rtol, atol=case.atol)


def torch_of(value: Any) -> Any:
    """An array, a TensorProto, a list of them or None, in torch."""
    if value is None or isinstance(value, list):
        return value and [torch_of(part) for part in value]
    if isinstance(value, onnx.TensorProto):
        return tensor(value, "the test", None)
    array = np.array(value)
    return (
        torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        if array.dtype.name == "bfloat16"
        else torch.from_numpy(array)
    )


def skipped(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in SKIPS)


def test_every_official_node_test_passes():
    wrong = {name: how for name, how in failures().items() if not skipped(name)}
    assert not wrong, "\n".join(f"{name}: {how}" for name, how in wrong.items())


def test_no_skip_is_stale():
    certain = [pattern for pattern, reason in SKIPS.items() if not reason.startswith("Rounding")]
    passing = [n for n in cases() if any(fnmatchcase(n, p) for p in certain) and n not in failures()]
    assert not passing, f"these are skipped, and pass: {passing}"
    unused = [pattern for pattern in SKIPS if not any(fnmatchcase(name, pattern) for name in cases())]
    assert not unused, f"these skips match no test: {unused}"
    assert all(isinstance(reason, str) and len(reason) > 20 for reason in SKIPS.values())


def test_almost_all_are_run(record_property: Any, capsys: pytest.CaptureFixture[str]):
    run = [name for name in cases() if not skipped(name)]
    operators = {n.op_type for name in run for n in cases()[name].model.graph.node}
    counts = f"{len(run)} official node tests of {len(operators)} operators pass, {len(cases()) - len(run)} are skipped"
    record_property("onnx node tests", counts)
    with capsys.disabled():
        print(f"\n{counts}")
    assert len(run) > 1400


# the domain ai.onnx.ml has nearly no tests, and these of ONNX's own none: tests/adapters/onnx/test_graph.py has some
WITHOUT = {"GlobalLpPool", "ConcatFromSequence", "Optional", "SequenceAt", "SequenceConstruct", "SequenceErase"}


def test_every_operator_has_an_official_test_or_one_of_ours():
    tested = {n.op_type for case in cases().values() for n in case.model.graph.node}
    assert set(OPERATORS[""]) - tested == WITHOUT


# --- derivatives ----------------------------------------------------------------------------------------------------

STEP, TOLERANCE = 1e-6, 1e-6

NO_DERIVATIVE = {
    "a truth value or an index": """And ArgMax ArgMin Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonZero
        Not OptionalHasElement Or SequenceLength Xor""",
    "of integers alone": "BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor",
    "of no tensor, or of its shape alone": "Constant ConstantOfShape EyeLike SequenceEmpty Shape Size",
    "of numbers that are read, and refused where they depend on an input": "Range",
    "a staircase, without even a zero": "Binarizer Hardmax",
    "sequences and bodies, which test_onnx_graph.py differentiates": """ConcatFromSequence If Optional SequenceAt
        SequenceConstruct SequenceErase SequenceInsert SequenceMap SplitToSequence""",
}
"""reason -> operators"""
COARSE = ["test_attention_24_qk_matmul_output_mode3_softmax_precision"]
"""Within float16 there are no differences to take."""


def node(
    operator: str, *arrays: Any, domain: str = "", outputs: int = 1, **attributes: Any
) -> tuple[onnx.ModelProto, list[Any]]:
    """A model of one node whose inputs are all the graph's."""
    arrays_in = [np.asarray(a) for a in arrays]
    names = [f"x{i}" for i in range(len(arrays_in))]
    values = [
        make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays_in, strict=True)
    ]
    results = [make_tensor_value_info(f"y{i}", onnx.TensorProto.FLOAT, None) for i in range(outputs)]
    one = make_node(operator, names, [r.name for r in results], domain=domain, **attributes)
    versions = [make_opsetid("", 21), make_opsetid("ai.onnx.ml", 3)]
    return make_model(make_graph([one], "one", values, results), opset_imports=versions), list(arrays_in)


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
ML = partial(node, domain="ai.onnx.ml")
OURS = [
    node("Cast", X, to=onnx.TensorProto.DOUBLE),
    node("CastLike", X, np.zeros(1)),
    node("Trilu", X),
    node("GlobalLpPool", X.reshape(1, 3, 2, 2), p=3),
    ML("ArrayFeatureExtractor", X, np.array([2, 0])),
    ML("FeatureVectorizer", X, X[:, :2], inputdimensions=[4, 2]),
    ML("Imputer", X, imputed_value_floats=[0.5], replaced_value_float=float("nan")),
    ML(
        "LinearClassifier",
        X,
        outputs=2,
        coefficients=X.flatten().tolist(),
        intercepts=[0.1, 0.2, 0.3],
        classlabels_ints=[0, 1, 2],
        post_transform="SOFTMAX",
    ),
    ML(
        "LinearClassifier",
        X,
        outputs=2,
        coefficients=X.flatten().tolist(),
        classlabels_ints=[0, 1, 2],
        post_transform="LOGISTIC",
    ),
    ML("LinearRegressor", X, coefficients=X[:2].flatten().tolist(), intercepts=[0.1, 0.2], targets=2),
    *(ML("Normalizer", X, norm=norm) for norm in ("MAX", "L1", "L2")),
    ML("Scaler", X, offset=[0.1, 0.2, 0.3, 0.4], scale=[1.0, 2.0, 3.0, 4.0]),
]
"""of operators that have no official test, or none with a derivative"""


def differentiable() -> Iterator[tuple[str, Graph, dict[str, Any]]]:
    """Graphs of one node, with their inputs."""
    single = [(n, c.model, c.data_sets[0][0]) for n, c in cases().items() if len(c.model.graph.node) == 1]
    ours = [(model.graph.node[0].op_type, model, arrays) for model, arrays in OURS]
    for name, model, arrays in [*(case for case in single if not skipped(case[0]) and case[0] not in COARSE), *ours]:
        graph = read_graph(model)
        if graph.main.steps:
            yield name, graph, {v.name: torch_of(x) for v, x in zip(graph.inputs, arrays, strict=True)}


def derivatives(graph: Graph, inputs: Mapping[str, Any]) -> tuple[float, float] | None:
    """By autograd and by differences, in a random direction of all float inputs; None where there is none to take.

    A little noise on the inputs first: the tests are fond of ties and of kinks.
    """
    (step,) = graph.main.steps
    random = np.random.default_rng(0)
    host = {step.inputs[i] for i in step.host}  # numbers of which there is no derivative
    moving = [n for n, x in inputs.items() if isinstance(x, Tensor) and x.is_floating_point() and n not in host]
    start = {n: inputs[n].double() + torch.from_numpy(random.uniform(-1e-3, 1e-3, inputs[n].shape)) for n in moving}
    ways = {n: torch.from_numpy(random.normal(size=inputs[n].shape)) for n in moving}

    def along(t: Tensor | float) -> Tensor:
        """A random combination of all float outputs."""
        point = {**inputs, **{n: start[n] + t * ways[n] for n in moving}}
        values = [y for y in evaluate(graph, point).values() if isinstance(y, Tensor) and y.dtype == torch.float64]
        weights = np.random.default_rng(1)
        parts = [(y * torch.from_numpy(np.asarray(weights.normal(size=y.shape)))).sum() for y in values]
        return torch.stack(parts).sum() if parts else torch.zeros(())

    here = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = along(here)
    if not value.requires_grad or not bool(value.isfinite()):
        return None
    (mine,) = torch.autograd.grad(value, here)
    return float(mine), float(along(STEP) - along(-STEP)) / (2 * STEP)


def test_derivatives_are_those_of_finite_differences():
    wrong, compared = [], Counter()
    for name, graph, inputs in differentiable():
        try:
            both = derivatives(graph, inputs)
        except NotSupported as exc:
            if "numbers that depend on the input" not in str(exc):
                raise
            continue
        if both is None:
            continue
        mine, finite = both
        compared[graph.main.steps[0].operator] += 1
        if not abs(mine - finite) <= TOLERANCE * max(1, abs(finite)):
            wrong.append(f"{name}: {mine} by autograd, {finite} by differences")
    assert not wrong, "\n".join(wrong)
    excluded = {operator for operators in NO_DERIVATIVE.values() for operator in operators.split()}
    everything = {operator for table in OPERATORS.values() for operator in table}
    assert excluded <= everything
    assert sorted(excluded & set(compared)) == [], "these have derivatives after all"
    assert sorted(everything - excluded - set(compared)) == [], "these were not differentiated"
