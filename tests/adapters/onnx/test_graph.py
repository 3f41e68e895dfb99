"""Reading and evaluating ONNX graphs: what the official node tests don't have.

Operators as they were in older opsets, against ONNX Runtime; control flow and local functions; what is missing, by name;
files that are damaged or point out of their folder; and where the gradient goes at kinks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper, parser
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from torch import Tensor

from sparring.adapters.errors import InputError, NotSupported
from sparring.adapters.onnx.graph import Missing, evaluate, read_graph

RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def model(
    operator: str, inputs: Sequence[Any], opset: int, outputs: int = 1, constants: Sequence[int] = (), **attributes: Any
) -> onnx.ModelProto:
    """One node; the inputs at the positions ``constants`` are initializers."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    arrays = [(i, n, np.asarray(x)) for i, (n, x) in enumerate(zip(names, inputs, strict=True)) if n]
    free = [
        make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, n, x in arrays
        if i not in constants
    ]
    results = [make_tensor_value_info(f"y{i}", 0, None) for i in range(outputs)]
    for result in results:
        result.ClearField("type")
    node = make_node(operator, names, [r.name for r in results], name="the node", **attributes)
    constant_tensors = [numpy_helper.from_array(x, n) for i, n, x in arrays if i in constants]
    return make_model(
        make_graph([node], "g", free, results, constant_tensors), opset_imports=[make_opsetid("", opset)], ir_version=8
    )


def runtime(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return list(onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed))


def ours(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[Any]:
    return [y.numpy() for y in evaluate(read_graph(proto), {n: torch.from_numpy(x) for n, x in feed.items()}).values()]


def text(source: str) -> onnx.ModelProto:
    return parser.parse_model(source)


# --- operators as they were -----------------------------------------------------------------------------------------

X, IMAGES = noise(2, 3, 4), noise(2, 3, 5, 6)
SIX = np.array([6], np.float32)
OLD: list[tuple[str, Sequence[Any], int, dict[str, Any]]] = [
    *(("Softmax", [X], opset, {"axis": axis}) for opset in (7, 11, 12, 13) for axis in (0, 1, 2)),
    *(("Softmax", [X], opset, {}) for opset in (11, 13)),
    *(("LogSoftmax", [X], opset, {"axis": 1}) for opset in (11, 13)),
    *(("Hardmax", [X], opset, {"axis": 1}) for opset in (11, 13)),
    *(
        (f"Reduce{kind}", [X], opset, {"axes": [0, -1] if opset > 10 else [0, 2], "keepdims": keep})
        for kind in ("Mean", "Max", "Min", "L1", "L2", "Prod", "SumSquare", "LogSumExp")
        for opset, keep in ((7, 1), (11, 0), (13, 1))
    ),
    *(("ReduceSum", [X], opset, {"axes": [1], "keepdims": 0}) for opset in (7, 11, 12)),
    ("ReduceSum", [X, ints(1)], 13, {"keepdims": 0, "constants": [1]}),
    ("ReduceMean", [X], 13, {}),
    ("ReduceMean", [X, ints(0, 2)], 18, {"constants": [1]}),
    ("ReduceMean", [X, ints()], 18, {"constants": [1], "noop_with_empty_axes": 1}),
    ("ReduceMax", [X, ints(-1)], 20, {"constants": [1]}),
    ("ArgMax", [X], 7, {"axis": 1}),
    ("ArgMin", [X], 12, {"axis": -1, "keepdims": 0, "select_last_index": 1}),
    ("Squeeze", [X[:1, :, :1]], 7, {"axes": [0, 2]}),
    ("Squeeze", [X[:1, :, :1]], 11, {"axes": [-1]}),
    ("Squeeze", [X[:1, :, :1]], 11, {}),
    ("Squeeze", [X[:1, :, :1], ints(0)], 13, {"constants": [1]}),
    ("Unsqueeze", [X], 7, {"axes": [0, 4]}),
    ("Unsqueeze", [X], 11, {"axes": [-1, 1]}),
    ("Unsqueeze", [X, ints(-1, 0)], 13, {"constants": [1]}),
    ("Split", [IMAGES], 7, {"axis": 3, "split": [1, 2, 3], "outputs": 3}),
    ("Split", [IMAGES], 11, {"axis": -1, "outputs": 2}),
    ("Split", [IMAGES, ints(4, 2)], 13, {"axis": 3, "outputs": 2, "constants": [1]}),
    ("Split", [IMAGES], 18, {"axis": 2, "num_outputs": 2, "outputs": 2}),
    ("Clip", [X], 7, {"min": -0.5, "max": 0.5}),
    ("Clip", [X], 10, {"max": 0.5}),
    ("Clip", [X, np.float32(-0.5)], 11, {}),
    ("Clip", [X, None, np.float32(0.5)], 13, {"constants": [2]}),
    ("Clip", [X, np.float32(1), np.float32(-1)], 13, {}),
    ("Clip", [np.arange(6), np.int64(1), np.int64(3)], 12, {}),
    ("Slice", [X], 9, {"axes": [2, 0], "starts": [1, 0], "ends": [-1, 1]}),
    ("Slice", [X], 7, {"starts": [0, -2], "ends": [1, 9223372036854775807]}),
    ("Slice", [X, ints(-1), ints(-(2**63)), ints(2), ints(-2)], 10, {"constants": [1, 2, 3, 4]}),
    ("Dropout", [X], 7, {"ratio": 0.3}),
    ("Dropout", [X], 10, {"ratio": 0.3, "outputs": 2}),
    ("Dropout", [X, np.float32(0.3)], 13, {"outputs": 2}),
    *(("BatchNormalization", [IMAGES, *np.abs(noise(4, 3))], opset, {"epsilon": 0.1}) for opset in (7, 9, 14, 15)),
    ("InstanceNormalization", [IMAGES, noise(3), noise(3)], 7, {"epsilon": 0.1}),
    ("GroupNormalization", [noise(2, 4, 3, 3), noise(2), noise(2)], 18, {"num_groups": 2}),
    ("GroupNormalization", [noise(2, 4, 3, 3), noise(4), noise(4)], 21, {"num_groups": 2}),
    ("LRN", [noise(1, 7, 2, 2)], 7, {"size": 3, "alpha": 0.5}),
    ("MeanVarianceNormalization", [IMAGES], 9, {}),
    ("LpNormalization", [X], 7, {"axis": 1, "p": 1}),
    ("Upsample", [IMAGES], 7, {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}),
    ("Upsample", [IMAGES, np.array([1, 1, 2, 1.5], np.float32)], 9, {"mode": "linear", "constants": [1]}),
    *(
        ("Resize", [IMAGES, np.array([1, 1, *scales], np.float32)], 10, {"mode": mode, "constants": [1]})
        for mode in ("nearest", "linear")
        for scales in ((2, 3), (0.5, 0.6), (1.3, 0.4))
    ),
    (
        "Resize",
        [IMAGES, np.zeros(8, np.float32), np.array([1, 1, 1.6, 2], np.float32)],
        11,
        {"mode": "cubic", "constants": [1, 2]},
    ),
    ("Pad", [IMAGES], 7, {"pads": [0, 0, 1, 0, 0, 1, -1, 2], "value": 1.5}),
    ("Pad", [IMAGES], 10, {"pads": [0, 0, 2, 1, 0, 0, 0, 2], "mode": "reflect"}),
    ("Pad", [IMAGES, ints(0, 0, 2, 1, 0, 0, 0, 2)], 11, {"mode": "edge", "constants": [1]}),
    ("Pad", [IMAGES, ints(1, 2), np.float32(2), ints(-1)], 18, {"constants": [1, 2, 3]}),
    ("Pad", [IMAGES, ints(0, 0, 7, 1, 0, 0, 0, 2)], 19, {"mode": "wrap", "constants": [1]}),
    ("TopK", [X], 9, {"k": 2, "axis": 1, "outputs": 2}),
    ("TopK", [X, ints(2)], 10, {"outputs": 2, "constants": [1]}),
    ("TopK", [np.array([[3, 1, 3, 1.0]], np.float32), ints(3)], 11, {"outputs": 2, "largest": 0, "constants": [1]}),
    ("Gemm", [X[0], noise(3, 5), noise(4, 1)], 7, {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [X[0], noise(5, 4)], 11, {"transB": 1}),
    ("MaxPool", [IMAGES], 7, {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1]}),
    ("MaxPool", [IMAGES], 10, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "outputs": 2}),
    ("AveragePool", [IMAGES], 7, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [IMAGES], 10, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
    (
        "AveragePool",
        [IMAGES],
        19,
        {"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    ("LpPool", [IMAGES], 11, {"kernel_shape": [2, 3], "p": 3, "auto_pad": "SAME_UPPER"}),
    ("GlobalLpPool", [IMAGES], 7, {"p": 3}),
    ("PRelu", [IMAGES, noise(3, 1, 1)], 7, {}),
    ("Flatten", [IMAGES], 9, {"axis": 2}),
    ("Flatten", [IMAGES], 11, {"axis": -1}),
    ("Cast", [X * 3], 7, {"to": TensorProto.INT32}),
    ("Cast", [np.arange(3)], 9, {"to": TensorProto.BOOL}),
    ("Scatter", [X, ints(1, 0).reshape(1, 1, 2), noise(1, 1, 2)], 9, {"axis": 2}),
    ("OneHot", [ints(0, -1, 5), ints(3), np.array([0.5, 2], np.float32)], 9, {"axis": 0, "constants": [1]}),
    ("DepthToSpace", [noise(1, 8, 2, 3)], 7, {"blocksize": 2}),
    ("DepthToSpace", [noise(1, 8, 2, 3)], 11, {"blocksize": 2, "mode": "CRD"}),
    ("Mod", [ints(-7, 7), ints(3, -3)], 10, {}),
    ("Mod", [X, SIX], 10, {"fmod": 1}),
    ("Div", [ints(-7, 7), ints(2, -2)], 7, {}),
    ("Reshape", [X[:, :0], ints(0, 0, 5)], 14, {"allowzero": 1, "constants": [1]}),
    ("Reshape", [X, ints(0, -1)], 7, {"constants": [1]}),
    ("GridSample", [IMAGES, noise(2, 4, 4, 2) / 2], 16, {"mode": "bilinear", "padding_mode": "reflection"}),
    ("GridSample", [IMAGES, noise(2, 4, 4, 2) / 2], 20, {"mode": "nearest", "align_corners": 1}),
    (
        "ConvTranspose",
        [IMAGES, noise(3, 2, 3, 2), noise(2)],
        7,
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    ("ConvTranspose", [IMAGES, noise(3, 2, 3, 3)], 11, {"strides": [2, 2], "output_shape": [10, 13]}),
    ("ConvTranspose", [IMAGES, noise(3, 2, 3, 3)], 11, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    *(
        ("Conv", [IMAGES, noise(4, 3, 2, 3), noise(4)], 11, {"auto_pad": how, "strides": [1, 2]})
        for how in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    ("Conv", [IMAGES, noise(6, 1, 2, 3)], 7, {"group": 3, "pads": [1, 0, 0, 2]}),
]


@pytest.mark.parametrize("case", OLD, ids=lambda case: f"{case[0]}-{case[2]}")
def test_operators_of_older_opsets_are_those_of_onnx_runtime(case):
    operator, inputs, opset, attributes = case
    proto = model(operator, inputs, opset, **attributes)
    names = {value.name for value in proto.graph.input}
    feed = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs) if f"x{i}" in names}
    for mine, theirs in zip(ours(proto, feed), runtime(proto, feed), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


CELLS = {"RNN": (1, 1), "GRU": (3, 2), "LSTM": (4, 3)}
"""operator -> gates, activations"""


@pytest.mark.parametrize("operator", CELLS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("how", ["bare", "all inputs", "unusual"])
def test_recurrent_nodes_are_those_of_onnx_runtime(operator, direction, how):
    gates, kinds = CELLS[operator]
    ways, steps, batch, width, size = (2 if direction == "bidirectional" else 1), 4, 3, 5, 6
    inputs: list[Any] = [noise(steps, batch, width), noise(ways, gates * size, width), noise(ways, gates * size, size)]
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": size}
    if how != "bare":
        inputs += [noise(ways, 2 * gates * size), np.array([2, 4, 1], np.int32), noise(ways, batch, size)]
    if how == "all inputs" and operator == "LSTM":
        inputs += [noise(ways, batch, size), noise(ways, 3 * size)]
    if how == "unusual":
        attributes |= {"clip": 0.7, "activations": ["HardSigmoid", "LeakyRelu", "Softsign"][:kinds] * ways}
        attributes |= {"activation_alpha": [0.3, 0.1][: min(kinds, 2)] * ways, "activation_beta": [0.4] * ways}
        attributes |= {"LSTM": {"input_forget": 1}, "GRU": {"linear_before_reset": 1}}.get(operator, {})
    proto = model(operator, inputs, 14, 3 if operator == "LSTM" else 2, **attributes)
    feed = {f"x{i}": x for i, x in enumerate(inputs)}
    for mine, theirs in zip(ours(proto, feed), runtime(proto, feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", CELLS)
def test_batch_first_recurrent_nodes_are_the_others_turned_around(operator):
    """ONNX Runtime has no layout=1 on a CPU."""
    gates, _ = CELLS[operator]
    x, w, r, h = noise(4, 3, 5), noise(2, gates * 6, 5), noise(2, gates * 6, 6), noise(2, 3, 6)
    options = {"direction": "bidirectional", "outputs": 2, "opset": 14}
    every, last = ours(
        model(operator, [x, w, r, None, None, h], **options), {"x0": x, "x1": w, "x2": r, "x5": h}
    )  # (time, ways, batch, size), (ways, batch, size)
    turned = [x.swapaxes(0, 1).copy(), w, r, None, None, h.swapaxes(0, 1).copy()]
    feed = {f"x{i}": t for i, t in enumerate(turned) if t is not None}
    first, end = ours(model(operator, turned, layout=1, **options), feed)
    np.testing.assert_allclose(first, every.transpose(2, 0, 1, 3), atol=1e-6)
    np.testing.assert_allclose(end, last.swapaxes(0, 1), atol=1e-6)


# --- control flow and local functions -------------------------------------------------------------------------------

LOOP = """<ir_version: 8, opset_import: ["" : 17]>
main (float[N] x, int64 rounds) => (float[N] y, float[rounds, N] every) {
    yes = Constant <value = bool {1}> ()
    factor = Constant <value = float {0.5}> ()
    y, every = Loop (rounds, yes, x) <body = step (int64 i, bool on, float[N] state) => (bool go, float[N] next, float[N] out) {
        limit = Constant <value = float {8}> ()
        squared = Mul (state, state)
        half = Mul (squared, factor)
        next = Add (half, x)
        total = ReduceSum <keepdims = 0> (next)
        go = Less (total, limit)
        out = Identity (half)
    }>
}"""


def test_a_loop_sees_what_is_around_it_ends_by_its_condition_and_has_a_gradient():
    graph = read_graph(text(LOOP))
    x = torch.tensor([1.0, 0.5], requires_grad=True)
    values = evaluate(graph, {"x": x, "rounds": torch.tensor(20)})
    state, every = x, []
    while True:
        every.append(state * state * 0.5)
        state = every[-1] + x
        if state.sum() >= 8:
            break
    assert 2 < len(every) < 20
    assert torch.allclose(values["y"], state)
    assert torch.allclose(values["every"], torch.stack(every))
    mine, theirs = (torch.autograd.grad(y.sum(), x)[0] for y in (values["y"], state))
    assert torch.allclose(mine, theirs)
    theirs = runtime(text(LOOP), {"x": x.detach().numpy(), "rounds": np.array(20)})
    np.testing.assert_allclose(values["every"].detach(), theirs[1], rtol=1e-5)
    short = evaluate(graph, {"x": x, "rounds": torch.tensor(2)})
    assert len(short["every"]) == 2


SCAN = """<ir_version: 8, opset_import: ["" : 17]>
main (float[2] start, float[2, T] rows, float[T, 2] others) => (float[2] end, float[2, T] sums) {
    end, sums = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [0, 1],
        scan_output_axes = [1], scan_output_directions = [1],
        body = step (float[2] state, float[2] row, float[2] other) => (float[2] next, float[2] out) {
            both = Mul (row, other)
            next = Add (state, both)
            out = Tanh (next)
        }> (start, rows, others)
}"""


def test_a_scan_has_axes_and_directions_and_a_gradient():
    graph = read_graph(text(SCAN))
    start, rows, others = noise(2), noise(2, 3), noise(3, 2)
    feed = {"start": start, "rows": rows, "others": others}
    for mine, theirs in zip(ours(text(SCAN), feed), runtime(text(SCAN), feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    leaf = torch.from_numpy(rows).requires_grad_()
    end = evaluate(graph, {"start": torch.from_numpy(start), "rows": leaf, "others": torch.from_numpy(others)})["end"]
    (gradient,) = torch.autograd.grad(end.sum(), leaf)
    assert torch.allclose(gradient, torch.from_numpy(others).flip(0).T)


IF = """<ir_version: 8, opset_import: ["" : 17]>
main (float[2] x) => (float[2] y) {
    zero = Constant <value = float {0}> ()
    total = ReduceSum <keepdims = 0> (x)
    positive = Greater (total, zero)
    y = If (positive) <
        then_branch = up () => (float[2] a) { a = Exp (x) },
        else_branch = down () => (float[2] b) { twice = Add (x, x) b = Neg (twice) }>
}"""


@pytest.mark.parametrize(("x", "slope"), [([1.0, 2.0], np.exp([1, 2])), ([-1.0, -2.0], [-2, -2])])
def test_the_gradient_is_that_of_the_branch_taken(x, slope):
    leaf = torch.tensor(x, requires_grad=True)
    y = evaluate(read_graph(text(IF)), {"x": leaf})["y"]
    np.testing.assert_allclose(torch.autograd.grad(y.sum(), leaf)[0], slope, rtol=1e-5)
    np.testing.assert_allclose(y.detach(), runtime(text(IF), {"x": np.float32(x)})[0], rtol=1e-5)


def test_of_an_if_on_a_constant_only_the_branch_that_is_taken_counts():
    source = IF.replace("positive = Greater (total, zero)", "positive = Constant <value = bool {1}> ()")
    graph = read_graph(text(source.replace("Neg (twice)", "Unknown (twice)")))
    assert not graph.missing
    assert graph.main.steps[-1].operator == "If"


SEQUENCES = """<ir_version: 8, opset_import: ["" : 17]>
main (float[4, 2] x) => (float[N, 2] y, int64 n) {
    one = Constant <value = int64 {1}> ()
    zero = Constant <value = int64 {0}> ()
    parts = SplitToSequence <axis = 0> (x)
    doubled = SequenceMap (parts) <body = twice (float[1, 2] part) => (float[1, 2] two) { two = Add (part, part) }>
    first = SequenceAt (doubled, zero)
    longer = SequenceInsert (doubled, first, one)
    shorter = SequenceErase (longer)
    small = SequenceConstruct (first, first)
    joined = ConcatFromSequence <axis = 0> (small)
    maybe = Optional (shorter)
    again = OptionalGetElement (maybe)
    n = SequenceLength (again)
    long = ConcatFromSequence <axis = 0> (again)
    y = Concat <axis = 0> (long, joined)
}"""


def test_sequences_and_optionals_carry_gradients():
    x = torch.randn(4, 2, requires_grad=True)
    values = evaluate(read_graph(text(SEQUENCES)), {"x": x})
    rows = 2 * x
    expected = torch.stack([rows[0], rows[0], rows[1], rows[2], rows[0], rows[0]])
    assert torch.equal(values["y"], expected)
    assert int(values["n"]) == 4
    assert torch.autograd.grad(values["y"].sum(), x)[0][:, 0].tolist() == [8, 2, 2, 0]


FUNCTIONS = """<ir_version: 9, opset_import: ["" : 18, "mine" : 1]>
main (float[2, 3] x) => (float[2, 3] y, float[2, 3] z, float[2, 3] same) {
    y = mine.outer <power = 3.0> (x)
    hidden, same = mine.both (x)
    z = mine.outer (hidden)
}
<domain: "mine", opset_import: ["" : 18, "mine" : 1]>
outer <power: float = 2.0> (a) => (c) {
    middle = mine.scaled <by: float = @power> (a)
    c = Relu (middle)
}
<domain: "mine", opset_import: ["" : 12]>
scaled <by> (a) => (b) {
    factor = Constant <value_float: float = @by> ()
    summed = ReduceSum <axes = [1]> (a)
    middle = Mul (a, factor)
    b = Sub (middle, summed)
}
<domain: "mine", opset_import: ["" : 18]>
both (a) => (b, a) { b = Neg (a) }"""


def test_local_functions_have_their_own_names_attributes_and_opset():
    """ReduceSum takes its axes as an attribute in one of them, whose opset is 12."""
    graph = read_graph(text(FUNCTIONS))
    x = torch.randn(2, 3)
    values = evaluate(graph, {"x": x})
    assert torch.allclose(values["y"], F.relu(3 * x - x.sum(1, keepdim=True)))
    assert torch.allclose(values["z"], F.relu(-2 * x + x.sum(1, keepdim=True)))
    assert torch.equal(values["same"], x)
    assert all(step.domain == "" for step in graph.main.steps)


def test_a_function_that_calls_itself_is_damage():
    source = FUNCTIONS.replace("b = Neg (a)", "b, c = mine.both (a)").replace("both (a)", "both (a)", 1)
    source = source.replace('opset_import: ["" : 18]>\nboth', 'opset_import: ["" : 18, "mine" : 1]>\nboth')
    with pytest.raises(InputError, match="both' calls itself"):
        read_graph(text(source))


# --- what is missing ------------------------------------------------------------------------------------------------


def one_node(line: str, opset: int = 18) -> onnx.ModelProto:
    return text(
        f'<ir_version: 8, opset_import: ["" : {opset}, "custom" : 1]> main (float[2, 2] x) => (float[2, 2] y) {{ {line} }}'
    )


@pytest.mark.parametrize(
    ("line", "opset", "names"),
    [
        ("y = custom.Thing (x)", 18, ["custom.Thing", "'y'"]),
        ("y = Nonsense (x)", 18, ["Nonsense", "'y'"]),
        ("y = Relu <strength = 2> (x)", 18, ["Relu", "'y'", "strength"]),
        ('y = Gelu <approximate = "roughly"> (x)', 20, ["Gelu", "approximate='roughly'"]),
        ("y = Gelu (x)", 18, ["Gelu", "opset 18 does not have"]),
        ("y = Scatter (x, x, x)", 18, ["Scatter", "no longer"]),
        ("y = Cast <to = 17> (x)", 19, ["Cast", "to=17"]),
        ("y = Relu (x)", 999, ["Relu", "opset 999"]),
        ("y = Add (x, x)", 6, ["Add", "opset 6"]),
        ("y = Relu (x, x)", 18, ["Relu", "2 inputs"]),
        ('s = Constant <value_string = "a"> () y = Add (x, s)', 18, ["Constant", "STRING"]),
    ],
)
def test_what_is_missing_is_named_with_its_node(line, opset, names):
    graph = read_graph(one_node(line, opset))
    assert graph.missing
    for name in names:
        assert name in str(graph.missing[0])
    with pytest.raises(NotSupported) as failure:
        evaluate(graph, {"x": torch.zeros(2, 2)})
    for name in names:
        assert name in str(failure.value)


def test_missing_is_what_an_output_needs_also_in_bodies_and_functions():
    graph = read_graph(text(IF.replace("Exp", "custom.Exp").replace("17]", '17, "custom" : 1]')))
    assert graph.missing == (Missing("Exp", "custom", "a"),)
    graph = read_graph(text(FUNCTIONS.replace("Relu", "Soften")))
    assert [(m.operator, m.node.split("/")[-1]) for m in graph.missing] == [("Soften", "y"), ("Soften", "z")]
    assert not graph.missing_for(["same"])
    x = torch.randn(2, 3)
    assert torch.equal(evaluate(graph, {"x": x}, ["same", "hidden"])["hidden"], -x)


@pytest.mark.parametrize(
    "line",
    [
        "b = Constant <value_ints = [3]> () y = Reshape (x, b)",
        "n = Constant <value_int = 1> () m = ReduceSum <keepdims = 0> (x) y = Range (m, m, m)",
        "m = ReduceMax <keepdims = 0> (x) y = Clip (x, m)",
        "i = Constant <value_ints = [7]> () y = Gather (x, i)",
    ],
)
def test_what_fails_says_where(line):
    with pytest.raises(NotSupported, match=r"the operator (Reshape|Range|Clip|Gather) \(node '\w+'\)"):
        evaluate(read_graph(one_node(line)), {"x": torch.zeros(2, 2, requires_grad=True)})


# --- files ----------------------------------------------------------------------------------------------------------


def saved(path: Path, **where: str) -> Path:
    """A model whose weights are external data, with the entries of ``where`` instead of the true ones."""
    weights = numpy_helper.from_array(noise(4, 3), "weights")
    values = [make_tensor_value_info("x", 1, ["N", 4])], [make_tensor_value_info("y", 1, ["N", 3])]
    proto = make_model(
        make_graph([make_node("MatMul", ["x", "weights"], ["y"], name="product")], "g", *values, [weights])
    )
    proto.ir_version, proto.opset_import[0].version = 8, 18
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if where:
        proto = onnx.load(path, load_external_data=False)
        for entry in proto.graph.initializer[0].external_data:
            entry.value = where.get(entry.key, entry.value)
        path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_are_read(tmp_path):
    path = saved(tmp_path / "m.onnx")
    x = noise(2, 4)
    mine = evaluate(read_graph(path), {"x": torch.from_numpy(x)})["y"]
    session = onnxruntime.InferenceSession(path)
    np.testing.assert_allclose(mine, session.run(None, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"location": "absent.bin"}, "not there"),
        ({"location": "../outside.bin"}, "not in the model's folder"),
        ({"location": "link.bin"}, "not in the model's folder"),
        ({"location": "{outside}"}, "not in the model's folder"),
        ({"location": ""}, "not in the model's folder"),
        ({"offset": "8"}, "cut off"),
        ({"offset": "-8"}, "cut off"),
        ({"length": "x"}, "no valid offset"),
        ({"length": "8"}, "damaged"),
    ],
)
def test_external_data_that_are_absent_or_elsewhere_are_refused(tmp_path, where, says):
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(outside)
    path = saved(folder / "m.onnx", **{key: value.format(outside=outside) for key, value in where.items()})
    with pytest.raises(InputError, match=says) as failure:
        read_graph(path)
    assert "m.onnx" in str(failure.value)
    assert "'weights'" in str(failure.value)


def test_a_model_in_memory_has_no_external_data(tmp_path):
    proto = onnx.load(saved(tmp_path / "m.onnx"), load_external_data=False)
    with pytest.raises(InputError, match="give its path"):
        read_graph(proto)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no ONNX file .*absent\.onnx"):
        read_graph(tmp_path / "absent.onnx")
    for content in (b"", b"PK\x03\x04 not a model", bytes(100), b"\x08\x08"):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"m\.onnx"):
            read_graph(tmp_path / "m.onnx")


def test_a_file_cut_off_anywhere_is_refused_or_whole(tmp_path):
    whole = text(FUNCTIONS).SerializeToString()
    path = tmp_path / "m.onnx"
    accepted = []
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        try:
            accepted.append(read_graph(path))
        except InputError:
            continue
    for graph in accepted:  # cut between functions, which are last: their calls are operators that are missing
        assert graph.missing


def test_inputs_that_are_not_the_graphs_are_refused():
    graph = read_graph(one_node("y = Relu (x)"))
    assert [(v.name, v.dtype, v.shape) for v in graph.inputs] == [("x", torch.float32, (2, 2))]
    x = torch.zeros(2, 2)
    for wrong in ({}, {"x": x, "z": x}, {"x": x.long()}, {"x": torch.zeros(2, 3)}, {"x": torch.zeros(2)}):
        with pytest.raises(InputError, match=r"input"):
            evaluate(graph, wrong)
    with pytest.raises(InputError, match="'z'"):
        evaluate(graph, {"x": x}, ["z"])


# --- evaluation -----------------------------------------------------------------------------------------------------

FOLDING = """<ir_version: 8, opset_import: ["" : 18], producer_name: "some exporter">
main (float[N, 3, 4] x) => (float[N, M] y) <float[2] scale = {1, 4}> {
    two = Sqrt (scale)
    one = Constant <value_ints = [1]> ()
    factor = Gather <axis = 0> (two, one)
    moved = Mul (x, factor)
    sides = Shape <end = 1> (moved)
    rest = Constant <value_ints = [-1]> ()
    shape = Concat <axis = 0> (sides, rest)
    flat = Reshape (moved, shape)
    y = Softmax (flat)
}"""


def test_what_is_constant_is_computed_once_and_no_gradient_reaches_it():
    graph = read_graph(text(FOLDING))
    assert (graph.producer, graph.opset) == ("some exporter", 18)
    assert [step.operator for step in graph.main.steps] == ["Mul", "Shape", "Concat", "Reshape", "Softmax"]
    x = torch.randn(5, 3, 4, requires_grad=True)
    values = evaluate(graph, {"x": x}, ["y", "factor", "moved", "x"])
    assert values["x"] is x
    assert values["factor"].tolist() == [2]
    assert not values["factor"].requires_grad
    assert torch.equal(values["y"], (2 * x).reshape(5, -1).softmax(-1))
    with torch.no_grad():
        assert not evaluate(graph, {"x": x})["y"].requires_grad


def test_a_graph_read_in_inference_mode_has_gradients_all_the_same():
    with torch.inference_mode():
        graph = read_graph(text(FOLDING))
    x = torch.randn(5, 3, 4, requires_grad=True)
    evaluate(graph, {"x": x})["y"][:, 0].sum().backward()
    assert x.grad is not None


def test_shapes_are_computed_on_the_host_and_the_rest_where_the_inputs_are():
    """The device ``meta`` has shapes and no numbers: reading one, as a GPU would be waited for, raises."""
    for source in (FOLDING, FUNCTIONS, SEQUENCES):
        graph = read_graph(text(source))
        (only,) = graph.inputs
        values = evaluate(graph, {"x": torch.zeros([5 if n is None else n for n in only.shape or ()], device="meta")})
        assert values["y"].device.type == "meta"
    loop = evaluate(read_graph(text(SCAN)), {n: torch.zeros(s, device="meta") for n, s in SCANNED.items()})
    assert loop["sums"].device.type == "meta"


SCANNED = {"start": (2,), "rows": (2, 3), "others": (3, 2)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double_precision(dtype):
    number = {
        torch.float16: TensorProto.FLOAT16,
        torch.bfloat16: TensorProto.BFLOAT16,
        torch.float64: TensorProto.DOUBLE,
    }[dtype]
    proto = text(FOLDING)
    proto.graph.input[0].type.tensor_type.elem_type = number
    proto.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("scale", number, [2], [1.0, 4.0]))
    x = torch.randn(5, 3, 4, dtype=dtype, requires_grad=True)
    y = evaluate(read_graph(proto), {"x": x})["y"]
    assert y.dtype == dtype
    exact = (2 * x.double()).reshape(5, -1).softmax(-1)
    assert torch.allclose(y.double(), exact, atol=1e-12 if dtype == torch.float64 else 1e-2)
    y[:, 0].sum().backward()
    assert x.grad is not None


KINKS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("y = Relu (x)", F.relu),
    ("a = Constant <value_float = 0.0> () b = Constant <value_float = 6.0> () y = Clip (x, a, b)", F.relu6),
    ("a = Constant <value_float = 0.0> () y = Clip (x, a)", lambda x: x.clamp(min=0)),
    ("y = LeakyRelu <alpha = 0.1> (x)", lambda x: F.leaky_relu(x, 0.1)),
    ("y = HardSwish (x)", F.hardswish),
    ("y = HardSigmoid <alpha = 0.16666666666666666, beta = 0.5> (x)", F.hardsigmoid),
    ("y = Elu (x)", F.elu),
    ("y = Abs (x)", torch.abs),
    ("y = ReduceMax <keepdims = 0> (x)", torch.amax),
    ("y = GlobalMaxPool (x)", lambda x: F.adaptive_max_pool2d(x, 1)),
    ("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", lambda x: F.max_pool2d(x, 2)),
    ("y = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (x)", lambda x: F.max_pool2d(x, 2, 1, 1)),
    ("z = Constant <value_float = 0.0> () y = Max (x, z)", lambda x: torch.maximum(x, torch.zeros(()))),
]


@pytest.mark.parametrize(("line", "torchs"), KINKS, ids=[line.split("=")[-1].split("(")[0] for line, _ in KINKS])
def test_gradients_at_kinks_and_ties_are_those_of_torch(line, torchs):
    """Black and white pixels, zeros after a ReLU, equal neighbors: measure zero in theory, half of an image in fact."""
    source = f'<ir_version: 8, opset_import: ["" : 18]> main (float[1, 2, 4, 4] x) => (float[N] y) {{ {line} }}'
    x = torch.tensor([-3.0, -1.0, 0.0, 0.0, 1.0, 3.0, 6.0, 6.0]).repeat(4).reshape(1, 2, 4, 4).requires_grad_()
    mine, theirs = evaluate(read_graph(text(source)), {"x": x})["y"], torchs(x)
    assert torch.allclose(mine, theirs)
    assert torch.allclose(*(torch.autograd.grad(y.sum(), x)[0] for y in (mine, theirs)))


def test_of_equal_numbers_tensorflow_gives_the_gradient_to_the_first():
    source = """<ir_version: 8, opset_import: ["" : 18], producer_name: "tf2onnx"> main (float[4] x) => (float[4] y) {
        a = Constant <value_float = 1.0> () b = Constant <value_float = 0.0> ()
        low = Min (x, a) y = Max (low, b) }"""
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0], requires_grad=True)
    evaluate(read_graph(text(source)), {"x": x})["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]  # that of tf.clip_by_value


def test_a_path_may_be_an_object_or_a_string(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(text(FOLDING), path)
    assert [s.operator for s in read_graph(path).main.steps] == [
        s.operator for s in read_graph(os.fspath(path)).main.steps
    ]
