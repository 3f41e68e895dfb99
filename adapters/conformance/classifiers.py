"""The laws of ``protocol.py``, as checks for anyone's classifier.

Each check takes a classifier and raises ``AssertionError`` when a law is broken, with the law and the numbers. The
module needs no test framework. With pytest, three lines make a test of each law::

    @pytest.mark.parametrize("check", checks_for(classifier), ids=lambda check: check.__name__)
    def test_law(check):
        check(classifier)

``check_rebuilds`` stands apart, for it must know how to build the classifier. The checks of an attack library,
``library_checks_for(library)``, are in ``libraries.py``.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.conformance.libraries import LIBRARY_CHECKS, LibraryCheck, library_checks_for
from sparring.adapters.errors import InputError
from sparring.adapters.protocol import (
    Classifier,
    Counter,
    Differentiable,
    Images,
    Logits,
    TensorflowNative,
    TorchNative,
    lacks,
)

__all__ = [
    "CLASSIFIER_CHECKS",
    "DIFFERENTIABLE_CHECKS",
    "LIBRARY_CHECKS",
    "Check",
    "LibraryCheck",
    "check_rebuilds",
    "checks_for",
    "library_checks_for",
    "sample_cotangent",
    "sample_images",
]

Check: TypeAlias = Callable[[Any], None]

BATCH_TOLERANCE = 1e-5
"""How much a float32 result may change with its order of summation, relative to the largest number."""
SLOPE_TOLERANCE = 2e-2
"""How much the slope along the gradient may differ from the gradient's norm at smooth points, as a share."""
RANDOM_SLOPE_TOLERANCE = 5e-2
"""The same in random directions. There the slope is smaller by the root of the number of pixels, and a deep
network's kinks weigh more. A missing or misplaced part of the gradient shows far more clearly: one lost row of 64 as
12 %, a lost color as 58 %."""


def sample_images(classifier: Classifier, n: int = 6, seed: int = 0) -> Images:
    """Images (n, C, H, W) for a check: uniform noise of [.25, .75], so that a small step stays in the box."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.25, 0.75, (n, *classifier.input_shape)).astype(np.float32)


def sample_cotangent(classifier: Classifier, n: int = 6, seed: int = 0) -> Logits:
    """Cotangents (n, classes) for a check: standard normal."""
    rng = np.random.default_rng(seed + 1)
    return rng.standard_normal((n, classifier.classes)).astype(np.float32)


# Every classifier


def check_shape_and_dtype(classifier: Classifier) -> None:
    """``logits`` gives a float32 array (N, classes) of finite numbers, for any N."""
    shape = tuple(classifier.input_shape)
    assert [type(side) for side in shape] == [int] * 3, f"input_shape must be three ints, not {shape}"
    for n in (1, 2, 5):
        _is_float32(classifier.logits(sample_images(classifier, n)), (n, classifier.classes), "logits")


def check_empty_batch(classifier: Classifier) -> None:
    """The empty batch is a batch."""
    _is_float32(classifier.logits(sample_images(classifier, 0)), (0, classifier.classes), "logits of no images")


def check_deterministic(classifier: Classifier) -> None:
    """``logits`` gives the same numbers for the same images, whatever runs in between."""
    x = sample_images(classifier)
    first = classifier.logits(x)
    copy = first.copy()
    classifier.logits(sample_images(classifier, seed=1))
    _are_same(first, copy, "an earlier result of logits is overwritten by a later call")
    _are_same(classifier.logits(x), copy, "logits differ between two calls")


def check_batch_independence(classifier: Classifier) -> None:
    """A sample's logits don't depend on the batch that it came in."""
    x = sample_images(classifier)
    _in_any_batch(classifier.logits(x), lambda rows: classifier.logits(x[rows]), len(x), "logits")


def check_leaves_input_alone(classifier: Classifier) -> None:
    """``logits`` doesn't write to the images, and accepts read-only and non-contiguous ones."""
    x = sample_images(classifier)
    for guise in _guises(x):
        _are_close(classifier.logits(guise), classifier.logits(x.copy()), "logits depend on the array's memory layout")
        assert np.array_equal(guise, x), "logits writes to the images"


def check_uses_input(classifier: Classifier) -> None:
    """Different images have different logits. A constant would keep every other law."""
    a, b = (classifier.logits(sample_images(classifier, seed=seed)) for seed in (0, 1))
    assert not np.array_equal(a, b), "the logits are the same whatever the images"


def check_refuses_bad_images(classifier: Classifier) -> None:
    """Another shape, another dtype, a NaN or something that is no array raises ``InputError``."""
    for what, x in _bad_images(classifier):
        _refuses(lambda x=x: classifier.logits(x), f"logits of {what}")  # type: ignore[misc]


def check_lacks(classifier: Classifier) -> None:
    """``lacks`` names ``gradients`` or ``logits``, each with a reason, and no gradients that ``vjp`` gives."""
    for capability, reason in lacks(classifier).items():
        assert capability in ("gradients", "logits"), f"lacks names {capability!r}, not 'gradients' or 'logits'"
        assert isinstance(reason, str), f"lacks gives {reason!r} as the reason for no {capability}, not a text"
        assert reason.strip(), f"lacks gives no reason for no {capability}"
    if isinstance(classifier, Differentiable):
        assert "gradients" not in lacks(classifier), "lacks names gradients, but the classifier has vjp"


# Differentiable ones


def check_vjp_shape_and_dtype(classifier: Differentiable) -> None:
    """``vjp`` gives a float32 array of the images' shape, of finite numbers, for any N."""
    for n in (0, 1, 5):
        x = sample_images(classifier, n)
        _is_float32(classifier.vjp(x, sample_cotangent(classifier, n)), x.shape, "vjp")


def check_vjp_deterministic(classifier: Differentiable) -> None:
    """``vjp`` gives the same numbers for the same arguments, whatever runs in between."""
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    first = classifier.vjp(x, cotangent)
    copy = first.copy()
    classifier.vjp(sample_images(classifier, seed=1), cotangent)
    classifier.logits(x)
    _are_same(first, copy, "an earlier result of vjp is overwritten by a later call")
    _are_same(classifier.vjp(x, cotangent), copy, "vjp differs between two calls")


def check_vjp_batch_independence(classifier: Differentiable) -> None:
    """A sample's gradient doesn't depend on the batch that it came in."""
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    whole = classifier.vjp(x, cotangent)
    _in_any_batch(whole, lambda rows: classifier.vjp(x[rows], cotangent[rows]), len(x), "vjp")


def check_vjp_leaves_input_alone(classifier: Differentiable) -> None:
    """``vjp`` writes neither to the images nor to the cotangent, and accepts read-only and non-contiguous ones."""
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    for guise, cotangent_guise in zip(_guises(x), _guises(cotangent), strict=True):
        result = classifier.vjp(guise, cotangent_guise)
        _are_close(result, classifier.vjp(x.copy(), cotangent.copy()), "vjp depends on the arrays' memory layout")
        assert np.array_equal(guise, x), "vjp writes to the images"
        assert np.array_equal(cotangent_guise, cotangent), "vjp writes to the cotangent"


def check_vjp_refuses_bad_arguments(classifier: Differentiable) -> None:
    """``vjp`` raises ``InputError`` for bad images, as ``logits`` does, and for a bad cotangent."""
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    for what, bad in _bad_images(classifier):
        _refuses(lambda bad=bad: classifier.vjp(bad, cotangent), f"vjp of {what}")  # type: ignore[misc]
    not_a_number = cotangent.copy()
    not_a_number[0, 0] = np.nan
    for what, wrong in (
        ("a cotangent for fewer images", cotangent[:-1]),
        ("a cotangent of one class too many", np.concatenate([cotangent, cotangent[:, :1]], axis=1)),
        ("a float64 cotangent", cotangent.astype(np.float64)),
        ("a cotangent with a NaN", not_a_number),
    ):
        _refuses(lambda wrong=wrong: classifier.vjp(x, wrong), f"vjp with {what}")  # type: ignore[misc]


def check_vjp_linear(classifier: Differentiable) -> None:
    """``vjp`` is linear in the cotangent."""
    x = sample_images(classifier)
    a, b = (sample_cotangent(classifier, seed=seed) for seed in (0, 1))
    _are_close(
        classifier.vjp(x, 2 * a - 3 * b),
        2 * classifier.vjp(x, a) - 3 * classifier.vjp(x, b),
        "vjp is not linear in the cotangent",
    )
    assert not classifier.vjp(x, np.zeros_like(a)).any(), "vjp of a zero cotangent is not zero"


def check_vjp_is_the_derivative(classifier: Differentiable) -> None:
    """``vjp`` is the derivative of ``logits``: central differences agree, along the gradient and in random directions.

    In float32 a long step crosses kinks, and a short one drowns in rounding. So the rounding is measured, and the step
    is the shortest that it allows. Where the slope ahead, the slope behind and that over twice the step differ, there
    is a kink, and the point doesn't count. The mean error of the others does.
    """
    x, cotangent = sample_images(classifier), sample_cotangent(classifier)
    gradient = classifier.vjp(x, cotangent).astype(np.float64)
    norms = np.sqrt((gradient**2).sum(axis=(1, 2, 3), keepdims=True))
    assert (norms > 0).all(), "vjp is zero for a random cotangent"
    signs = np.random.default_rng(2).choice((-1.0, 1.0), (8, *x.shape))
    for what, directions, tolerance in (
        ("along itself", (gradient / norms)[None], SLOPE_TOLERANCE),
        ("in random directions", signs / np.sqrt(x[0].size), RANDOM_SLOPE_TOLERANCE),
    ):
        errors = _slope_errors(classifier, x, cotangent, gradient, directions)
        assert len(errors), f"logits have no slope {what} at any of the points that were tried"
        assert errors.mean() < tolerance, (
            f"vjp is not the derivative of logits: {what} it is off by {errors.mean():.1%} "
            f"(mean of {len(errors)} smooth points; {tolerance:.0%} are allowed)"
        )


# Native doors


def check_torch_module(classifier: TorchNative) -> None:
    """The native torch module agrees with ``logits`` and ``vjp``, counts, and is in evaluation mode and frozen."""
    import torch

    x, cotangent, counter = sample_images(classifier), sample_cotangent(classifier), Counter()
    with classifier.torch_module(counter) as module:
        parameters = list(module.parameters())
        before = [(part, part.training) for part in module.modules()]
        assert parameters, "the module has no parameter, from which torchattacks reads the device"
        assert not any(parameter.requires_grad for parameter in parameters), "a parameter is not frozen"
        assert not any(training for _, training in before), "a part of the module is in training mode"
        images = torch.tensor(x, device=parameters[0].device, requires_grad=True)
        scores = module(images)
        assert counter == Counter(len(x), 0), f"one pass forwards of {len(x)} images counts as {counter}"
        (gradient,) = torch.autograd.grad(scores, images, torch.tensor(cotangent, device=images.device))
        assert counter == Counter(len(x), len(x)), f"one pass each way of {len(x)} images counts as {counter}"
    _are_close(scores.detach().cpu().numpy(), classifier.logits(x), "the native torch module disagrees with logits")
    _are_close(gradient.cpu().numpy(), classifier.vjp(x, cotangent), "the native torch module disagrees with vjp")


def check_tensorflow_function(classifier: TensorflowNative) -> None:
    """The native TensorFlow function agrees with ``logits`` and ``vjp`` and counts, also inside a ``tf.function``."""
    import tensorflow as tf

    x, cotangent, counter = sample_images(classifier), sample_cotangent(classifier), Counter()
    function = classifier.tensorflow_function(counter)
    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = function(images)
    gradient = tape.gradient(scores, images, output_gradients=tf.constant(cotangent))
    assert counter == Counter(len(x), len(x)), f"one pass each way of {len(x)} images counts as {counter}"
    _are_close(scores.numpy(), classifier.logits(x), "the native TensorFlow function disagrees with logits")
    _are_close(gradient.numpy(), classifier.vjp(x, cotangent), "the native TensorFlow function disagrees with vjp")
    compiled = tf.function(function)
    for _ in range(2):
        _are_close(compiled(images).numpy(), classifier.logits(x), "it disagrees with logits in a tf.function")
    assert counter == Counter(3 * len(x), len(x)), f"two more passes in a tf.function leave the count at {counter}"


CLASSIFIER_CHECKS: list[Check] = [
    check_shape_and_dtype,
    check_empty_batch,
    check_deterministic,
    check_batch_independence,
    check_leaves_input_alone,
    check_uses_input,
    check_refuses_bad_images,
    check_lacks,
]
DIFFERENTIABLE_CHECKS: list[Check] = [
    *CLASSIFIER_CHECKS,
    check_vjp_shape_and_dtype,
    check_vjp_deterministic,
    check_vjp_batch_independence,
    check_vjp_leaves_input_alone,
    check_vjp_refuses_bad_arguments,
    check_vjp_linear,
    check_vjp_is_the_derivative,
]


def checks_for(classifier: Classifier) -> list[Check]:
    """The checks that apply: those of every classifier, of gradients if it has them, and of its native doors.

    A defended classifier whose ``gradients`` are an estimate (``straight-through``, ``expectation``) is not compared
    with the derivative.
    """
    checks = list(DIFFERENTIABLE_CHECKS if isinstance(classifier, Differentiable) else CLASSIFIER_CHECKS)
    if isinstance(classifier, Differentiable) and getattr(classifier, "gradients", "exact") != "exact":
        checks.remove(check_vjp_is_the_derivative)
    if isinstance(classifier, TorchNative):
        checks.append(check_torch_module)
    if isinstance(classifier, TensorflowNative):
        checks.append(check_tensorflow_function)
    return checks


def check_rebuilds(build: str, x: Images | None = None) -> None:
    """The same model rebuilt in a fresh process gives the same numbers.

    ``build`` names a function without arguments that returns the classifier, as ``package.module:function``, importable
    from this process's ``sys.path``. It is called here, and in a new Python process; logits and gradients are compared.
    """
    classifier = _build(build)
    x = sample_images(classifier) if x is None else x
    with tempfile.TemporaryDirectory() as folder:
        images, answers = Path(folder, "images.npy"), Path(folder, "answers.npz")
        np.save(images, x)
        code = f"from {__name__} import _answer; _answer(*__import__('sys').argv[1:])"
        process = subprocess.run(
            [sys.executable, "-c", code, build, str(images), str(answers)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, f"{build} fails in a fresh process:\n{process.stderr[-2000:]}"
        with np.load(answers) as stored:
            for name, array in _answers(classifier, x).items():
                _are_same(stored[name], array, f"{name} of {build} are others in a fresh process")


def _build(build: str) -> Any:
    module, _, function = build.partition(":")
    return getattr(importlib.import_module(module), function)()


def _answers(classifier: Classifier, x: Images) -> dict[str, npt.NDArray[np.float32]]:
    answers = {"logits": classifier.logits(x)}
    if isinstance(classifier, Differentiable):
        answers["gradients"] = classifier.vjp(x, sample_cotangent(classifier, len(x)))
    return answers


def _answer(build: str, images: str, answers: str) -> None:
    np.savez(answers, **_answers(_build(build), np.load(images)))  # type: ignore[arg-type]


def _slope_errors(
    classifier: Differentiable, x: Images, cotangent: Logits, gradient: npt.NDArray[Any], directions: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Relative errors of the slopes at x (N, ...) along unit directions (D, N, ...), where there is no kink."""

    def value(step: float) -> Any:
        shifted = (x + step * directions).astype(np.float32)
        logits = classifier.logits(shifted.reshape(-1, *x.shape[1:])).reshape(*shifted.shape[:2], -1)
        return (logits.astype(np.float64) * cotangent).sum(axis=2)

    expected = (gradient * directions).sum(axis=(2, 3, 4))
    # a random direction can be nearly orthogonal to the gradient: the scale is what directions have in common
    scale = np.sqrt(np.mean(expected**2))
    middle = value(0.0)
    # over so short a step the slope cancels, and what remains is rounding
    rounding = np.sqrt(np.mean((value(1e-5) - 2 * middle + value(-1e-5)) ** 2)) + 1e-7 * np.abs(middle).mean()
    step = min(rounding / (SLOPE_TOLERANCE / 4 * scale), 0.1)
    ahead, behind = (value(step) - middle) / step, (middle - value(-step)) / step
    slope, wider = (ahead + behind) / 2, (value(2 * step) - value(-2 * step)) / (4 * step)
    kinks = np.maximum(np.abs(ahead - behind), np.abs(slope - wider)) > 0.1 * scale
    errors: npt.NDArray[np.float64] = (np.abs(slope - expected) / scale)[~kinks]
    return errors


def _is_float32(values: Any, shape: tuple[int, ...], what: str) -> None:
    assert isinstance(values, np.ndarray), f"{what} must be a NumPy array, not {type(values).__name__}"
    assert values.shape == shape, f"{what} must have shape {shape}, not {values.shape}"
    assert values.dtype == np.float32, f"{what} must be float32, not {values.dtype}"
    assert np.isfinite(values).all(), f"{what} must be finite"


def _are_same(a: npt.NDArray[Any], b: npt.NDArray[Any], what: str) -> None:
    assert a.shape == b.shape, f"{what}: {a.shape} against {b.shape}"
    assert np.array_equal(a, b), f"{what}: by up to {np.abs(a - b).max():.2g}"


def _are_close(a: npt.NDArray[Any], b: npt.NDArray[Any], what: str) -> None:
    assert a.shape == b.shape, f"{what}: {a.shape} against {b.shape}"
    off = np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny)
    assert off <= BATCH_TOLERANCE, f"{what}: by {off:.2g} of the largest number"


def _in_any_batch(whole: npt.NDArray[Any], part: Callable[[list[int]], npt.NDArray[Any]], n: int, what: str) -> None:
    batches = [[i] for i in range(n)] + [list(range(n))[::-1], [0] * n, [n - 1, 0]]
    for rows in batches:
        _are_close(part(rows), whole[rows], f"{what} of images {rows} of {n} are others than in one batch")


def _guises(x: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """The same numbers as a plain array, a read-only one, one with strides, and one that runs backwards in memory."""
    read_only = x.copy()
    read_only.flags.writeable = False
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    backwards = x[::-1].copy()[::-1]
    return [x.copy(), read_only, strided, backwards]


def _bad_images(classifier: Classifier) -> list[tuple[str, Any]]:
    x = sample_images(classifier)
    not_a_number, infinite = x.copy(), x.copy()
    not_a_number[1, 0, 0, 0] = np.nan
    infinite[1, 0, 0, 0] = np.inf
    return [
        ("float64 images", x.astype(np.float64)),
        ("uint8 images", (x * 255).astype(np.uint8)),
        ("one image without a batch axis", x[0]),
        ("images of one channel too many", np.concatenate([x, x[:, :1]], axis=1)),
        ("images of one row too few", x[:, :, 1:]),
        ("images with a NaN", not_a_number),
        ("images with an infinity", infinite),
        ("a list", x.tolist()),
    ]


def _refuses(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except InputError:
        return
    except Exception as exc:
        raise AssertionError(f"{what} raises {type(exc).__name__} where InputError is due: {exc}") from exc
    raise AssertionError(f"{what} raises nothing where InputError is due")
