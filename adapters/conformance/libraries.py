"""The laws of an attack library, as checks for anyone's bridge.

Each check takes a ``Library`` and raises ``AssertionError`` when a law is broken, with the attack and the numbers. The
module needs no test framework, and only the deep-learning frameworks that the library says it runs on. With pytest,
three lines make a test of each law::

    @pytest.mark.parametrize("check", library_checks_for(LIBRARY), ids=lambda check: check.__name__)
    def test_law(check):
        check(LIBRARY)

The attacks run on a small network in NumPy (``Small``), with parameters that make them short (``LIGHT``). They run
through the library's own session: nothing is corrected here that ``sparring.adapters.attacks.run`` would correct.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.catalogue import Attack, catalogue
from sparring.adapters.attacks.library import AttackMapping, Call, Context, Crafted, Fit, Library, Route, Unsupported
from sparring.adapters.attacks.request import request
from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.libraries.ledger import entries
from sparring.adapters.parameters import Parameter
from sparring.adapters.protocol import (
    Classifier,
    Counter,
    Images,
    Labels,
    Logits,
    check_cotangent,
    check_images,
)

LibraryCheck: TypeAlias = Callable[[Library], None]

LIGHT: dict[str, Any] = {
    "steps": 4,
    "search_steps": 2,
    "scales": 2,
    "samples": 2,
    "queries": 40,
    "restarts": 1,
    "iterations": 3,
    "initial_evaluations": 10,
    "max_evaluations": 20,
    "population": 40,
    "pixels": 3,
    "size": 8,
    "batch": 4,
    # one place for the patch: at another it is another input
    "rotation": 0,
    "scale_min": 1,
    "scale_max": 1,
    "attacks": [
        {"attack": "square", "library": "referee", "queries": 20, "restarts": 1},
        {"attack": "square", "library": "referee", "queries": 40, "restarts": 1},
    ],
}
"""Values of canonical parameters that make an attack short, wherever it has them."""
BUDGET = {"linf": 0.2, "l2": 1.0}
ROUNDING = 1e-5
"""How far float32 may carry an image out of its budget or the box."""
RANDOM = {
    "square",
    "pixle",
    "one-pixel",
    "hopskipjump",
    "boundary",
    "uniform-noise",
    "gaussian-noise",
    "salt-and-pepper",
    "apgd",
    "autoattack",
    "worst-of",
}
"""The attacks that draw random numbers whatever their parameters; others do where ``random_start`` is true."""


class Small:
    """A network in NumPy with its own gradient, tanh(x A) B. It counts the images that pass through it."""

    framework = "onnx"
    input_shape, classes = (1, 8, 8), 5

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.a = rng.standard_normal((64, 16)).astype(np.float32) / 4
        self.b = rng.standard_normal((16, 5)).astype(np.float32)
        self.seen = Counter()

    def logits(self, x: Images) -> Logits:
        check_images(x, self.input_shape)
        self.seen.forwards += len(x)
        return np.tanh((x.reshape(-1, 64) - 0.5) @ self.a) @ self.b

    def vjp(self, x: Images, cotangent: Logits) -> Images:
        check_images(x, self.input_shape)
        check_cotangent(cotangent, len(x), self.classes)
        self.seen.backwards += len(x)
        hidden = np.tanh((x.reshape(-1, 64) - 0.5) @ self.a)
        gradient: Images = ((cotangent @ self.b.T * (1 - hidden**2)) @ self.a.T).reshape(x.shape)
        return gradient


class WithoutGradients:
    """The same, logits only."""

    framework = "onnx"

    def __init__(self, inner: Small) -> None:
        self.input_shape, self.classes, self.logits = inner.input_shape, inner.classes, inner.logits


def sample(n: int = 6) -> tuple[Images, Labels]:
    """Images of uniform noise in [.25, .75], (n, 1, 8, 8), and the classes that ``Small`` gives them."""
    x = np.random.default_rng(1).uniform(0.25, 0.75, (n, *Small.input_shape)).astype(np.float32)
    return x, Small().logits(x).argmax(axis=1).astype(np.int64)


def light(attack: Attack) -> dict[str, Any]:
    """All parameters of an attack: those of ``LIGHT`` and the budget for a short run, the others by default."""
    params: dict[str, Any] = {key: value for key, value in LIGHT.items() if key in attack.parameters}
    for key in attack.required:
        params.setdefault(key, BUDGET.get(attack.norm, 0.2) if key == "eps" else _some_value(attack.parameters[key]))
    return request(attack.name, norm=attack.norm, params=params).params


def _some_value(parameter: Parameter) -> Any:
    if parameter.choices:
        return parameter.choices[0]
    low = parameter.low if parameter.low is not None else (parameter.above or 0) + 0.1
    return {int: int(np.ceil(low)), float: float(low), bool: True, tuple: (1, 2)}.get(parameter.type, "")


def mapped(library: Library) -> list[tuple[Attack, AttackMapping]]:
    """The canonical attacks that a library has."""
    pairs = ((attack, library.find(attack)) for attack in catalogue().values())
    return [(attack, mapping) for attack, mapping in pairs if isinstance(mapping, AttackMapping)]


# The table


def check_table(library: Library) -> None:
    """Every entry is a mapping of a canonical attack, or says why there is none."""
    for key, entry in library.attacks.items():
        assert key in catalogue(), f"{key} is no canonical attack"
        assert isinstance(entry, AttackMapping | Unsupported), f"{key} is a {type(entry).__name__}"
        if isinstance(entry, Unsupported):
            assert entry.reason.strip(), f"{key} is unsupported for no reason"


def check_parameters(library: Library) -> None:
    """Every canonical parameter is translated, or unsupported with a reason."""
    for attack, mapping in mapped(library):
        missing, more = (
            set(attack.parameters) - set(mapping.parameters),
            set(mapping.parameters) - set(attack.parameters),
        )
        assert not missing, f"{_name(attack)}: nothing is said of {', '.join(sorted(missing))}"
        assert not more, f"{_name(attack)} has no {', '.join(sorted(more))}"
        for name, rule in {**mapping.parameters, "targeted": mapping.targeted}.items():
            if isinstance(rule, Unsupported):
                assert rule.reason.strip(), f"{_name(attack)}: {name} is unsupported for no reason"


def check_signatures(library: Library) -> None:
    """Every keyword of the library's own class is translated or pinned, so that none of its defaults is inherited."""
    raw = library.raw()
    for attack, mapping in mapped(library):
        if mapping.target not in raw:
            assert not raw, f"{_name(attack)}: {mapping.target} is not among the classes that raw() lists"
            continue
        theirs = set(raw[mapping.target].signature.parameters) - {"self", "model", "classifier", "estimator"}
        ours = mapping.keywords()
        assert theirs <= ours, f"{mapping.target}: {', '.join(sorted(theirs - ours))} is neither translated nor pinned"
        unknown = ours - theirs - set(raw[mapping.target].call_keywords)
        assert not unknown, f"{mapping.target} takes no {', '.join(sorted(unknown))}"
        kwargs, _ = mapping.translate(_context(attack, 4, 0, False))
        assert set(kwargs) <= ours, f"{mapping.target} is given {', '.join(sorted(set(kwargs) - ours))}"


# What comes back


def check_images_are_legal(library: Library) -> None:
    """Images come back as float32 of the same shape, finite and in the box."""
    x, y = sample()
    for attack, mapping in mapped(library):
        _are_legal(run(library, attack, mapping, x, y), x, _name(attack))


def check_budget(library: Library) -> None:
    """An attack with a budget stays within it."""
    x, y = sample()
    for attack, mapping in mapped(library):
        eps = light(attack).get("eps")
        if attack.goal != "budget" or eps is None or attack.norm not in BUDGET:
            continue
        change = (run(library, attack, mapping, x, y) - x).reshape(len(x), -1).astype(np.float64)
        far = np.linalg.norm(change, ord=np.inf if attack.norm == "linf" else 2, axis=1).max()
        assert far <= eps + ROUNDING, f"{_name(attack)}: {far:.4g} away where eps is {eps:g}"


def check_empty_batch(library: Library) -> None:
    """The empty batch is a batch."""
    x, y = sample(0)
    for attack, mapping in mapped(library):
        _are_legal(run(library, attack, mapping, x, y), x, f"{_name(attack)} of no images")


def check_moves_from_the_label(library: Library) -> None:
    """An attack lowers the margin of the labels that it gets; noise need not."""
    every, labels = sample(12)
    for attack, mapping in mapped(library):
        if attack.needs != "nothing" and not attack.aims:
            # what is made once for all images leads away from one class
            some = labels == labels[0] if attack.fits else np.ones(len(labels), bool)
            x, y = every[some], labels[some]
            before, after = _margins(x, y), _margins(run(library, attack, mapping, x, y), y)
            assert after.mean() < before.mean(), (
                f"{_name(attack)}: the margin went from {before.mean():.3g} to {after.mean():.3g}"
            )


def check_moves_to_the_target(library: Library) -> None:
    """A targeted attack raises the margin of the target, and doesn't take it for the label."""
    x, y = sample(12)
    for attack, mapping in mapped(library):
        if attack.needs != "nothing" and mapping.targeted is None:
            goals = (y + 1) % Small.classes
            if attack.fits:  # what is made once for all images leads to one class
                goals = np.full_like(goals, goals[0])
            result = run(library, attack, mapping, x, goals, targeted=True)
            before, after = _margins(x, goals), _margins(result, goals)
            assert after.mean() > before.mean(), (
                f"{_name(attack)}: the target's margin went from {before.mean():.3g} to {after.mean():.3g}"
            )


# Randomness


def check_same_seed(library: Library) -> None:
    """The same seed gives the same images, whatever runs in between."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        first, _, again = (run(library, attack, mapping, x, y, seed=seed) for seed in (3, 4, 3))
        assert np.array_equal(first, again), f"{_name(attack)}: two runs with one seed differ"


def check_other_seed(library: Library) -> None:
    """Another seed gives other images, where an attack draws random numbers."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        if attack.name in RANDOM or light(attack).get("random_start"):
            results = [run(library, attack, mapping, x, y, seed=seed) for seed in range(4)]
            same = all(np.array_equal(results[0], other) for other in results[1:])
            assert not same, f"{_name(attack)}: four seeds give the same images"


# What it asks, and what it leaves


def check_counts(library: Library) -> None:
    """Every image passed forwards or backwards is counted once, and the attack uses only what it says that it needs."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        classifier, counter = Small(), Counter()
        run(library, attack, mapping, x, y, classifier=classifier, counter=counter)
        assert counter == classifier.seen, f"{_name(attack)}: {classifier.seen} were used and {counter} counted"
        if attack.needs == "gradients":
            assert counter.backwards, f"{_name(attack)} is said to need gradients, and asks for none"
        else:
            assert not counter.backwards, f"{_name(attack)} is said to need {attack.needs}, and asks for gradients"
            assert counter.forwards or attack.needs == "nothing", f"{_name(attack)} never asks the classifier"


def check_runs_without_gradients(library: Library) -> None:
    """An attack that needs no gradients runs on a classifier that has none."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        if attack.needs != "gradients":
            result = run(library, attack, mapping, x, y, classifier=WithoutGradients(Small()))
            _are_legal(result, x, _name(attack))


def check_frameworks(library: Library) -> None:
    """All attacks give legal images by the native route to every installed framework that the library claims."""
    frameworks = {"torch", "keras-torch", "keras-tensorflow"}
    assert library.native <= frameworks, f"{', '.join(sorted(library.native - frameworks))} is no framework"
    x, y = sample(4)
    for name in sorted(library.native):
        classifier = _native(name)
        if classifier is not None:
            for attack, mapping in mapped(library):
                counter = Counter()
                result = run(library, attack, mapping, x, y, classifier=classifier, route="native", counter=counter)
                _are_legal(result, x, f"{_name(attack)} on {name}")
                passes = counter.backwards if attack.needs == "gradients" else counter.forwards
                assert passes or attack.needs == "nothing", f"{_name(attack)} on {name}: nothing is counted"


def check_leaves_arguments_alone(library: Library) -> None:
    """Neither the images nor the labels are written to."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        images, labels = x.copy(), y.copy()
        run(library, attack, mapping, images, labels)
        assert np.array_equal(images, x), f"{_name(attack)} writes to the images"
        assert np.array_equal(labels, y), f"{_name(attack)} writes to the labels"


def check_leaves_the_process_alone(library: Library) -> None:
    """NumPy's error handling, torch's gradient mode and default type, and the working directory are as they were."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        before = _state()
        run(library, attack, mapping, x, y)
        for what, value in _state().items():
            assert value == before.get(what, value), f"{_name(attack)} leaves {what} at {value}"


def check_leaves_the_model_alone(library: Library) -> None:
    """A native torch module keeps its mode, its parameters, and whether these want gradients."""
    module = _torch_module() if "torch" in library.native else None
    if module is None:
        return
    from sparring.adapters.frameworks.pytorch import TorchClassifier

    x, y = sample(4)
    module.train()
    next(iter(module.parameters())).requires_grad_(False)
    classifier = TorchClassifier(module, input_shape=Small.input_shape, device="cpu")
    before = _model(module)
    for attack, mapping in mapped(library):
        run(library, attack, mapping, x, y, classifier=classifier, route="native")
        for what, value in _model(module).items():
            assert value == before[what], f"{_name(attack)} changes {what}"


def check_is_quiet(library: Library) -> None:
    """Nothing is written to standard output or standard error."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            run(library, attack, mapping, x, y)
        output = (out.getvalue() + error.getvalue()).strip()
        assert not output, f"{_name(attack)} writes {output.splitlines()[0]!r}"


def check_reconciliations_are_undone(library: Library) -> None:
    """After each reconciliation, ended normally or by an error, the attack gives the same images as before."""
    x, y = sample(4)
    for attack, mapping in mapped(library):
        own = [
            name
            for name in library.reconciliations
            if name not in entries() or f"{attack.name} {attack.norm}" in entries()[name].attacks
        ]
        if not own:
            continue
        before = run(library, attack, mapping, x, y)
        for name in own:
            with contextlib.suppress(_Left), library.reconciliations[name](_call(attack, mapping, x, y, 0, False)):
                raise _Left
            with library.reconciliations[name](_call(attack, mapping, x, y, 0, False)) as call:
                assert isinstance(call, Call), f"{name} gives a {type(call).__name__}, not the Call to make"
            after = run(library, attack, mapping, x, y)
            assert np.array_equal(before, after), f"{_name(attack)}: what {name} changes stays changed"


LIBRARY_CHECKS: list[LibraryCheck] = [
    check_table,
    check_parameters,
    check_signatures,
    check_images_are_legal,
    check_budget,
    check_empty_batch,
    check_moves_from_the_label,
    check_moves_to_the_target,
    check_same_seed,
    check_other_seed,
    check_counts,
    check_runs_without_gradients,
    check_frameworks,
    check_leaves_arguments_alone,
    check_leaves_the_process_alone,
    check_leaves_the_model_alone,
    check_is_quiet,
    check_reconciliations_are_undone,
]


def library_checks_for(library: Library) -> list[LibraryCheck]:
    """The checks that apply to a library; it may have no native route, or no reconciliations."""
    checks = list(LIBRARY_CHECKS)
    if not library.native:
        checks.remove(check_frameworks)
    if "torch" not in library.native:
        checks.remove(check_leaves_the_model_alone)
    if not library.reconciliations:
        checks.remove(check_reconciliations_are_undone)
    return checks


def run(
    library: Library,
    attack: Attack,
    mapping: AttackMapping,
    x: Images,
    y: Labels,
    *,
    classifier: Classifier | None = None,
    route: Route = "bridged",
    counter: Counter | None = None,
    seed: int = 0,
    targeted: bool = False,
) -> Images:
    """The images that the library's own session gives for one batch. Any error becomes an ``AssertionError``."""
    model = classifier or Small()
    goals = (y + 1) % Small.classes if attack.aims and not targeted else y
    call = _call(attack, mapping, x, goals, seed, targeted)
    try:
        with library.session(model, route, counter or Counter()) as session, seeded(seed):
            result = session(call)
            return result.images if isinstance(result, Crafted) else result
    except Exception as error:
        what = f"{_name(attack)} by the {route} route, {len(x)} images"
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def _call(attack: Attack, mapping: AttackMapping, x: Images, y: Labels, seed: int, targeted: bool) -> Call:
    context = _context(attack, len(x), seed, targeted)
    kwargs, _ = mapping.translate(context)
    fit = _others(y) if attack.fits else None
    return Call(mapping.target, kwargs, x, y, targeted or attack.aims, attack, context, fit)


def _others(y: Labels) -> Fit:
    """Images to train on, all different from ``sample``'s, all with the first of the labels."""
    x = np.random.default_rng(2).uniform(0.25, 0.75, (8, *Small.input_shape)).astype(np.float32)
    return Fit(x, np.full(len(x), y[0] if len(y) else 0, np.int64))


def _context(attack: Attack, n: int, seed: int, targeted: bool) -> Context:
    return Context(light(attack), Small.input_shape, Small.classes, n, seed, targeted)


def _name(attack: Attack) -> str:
    return f"{attack.name} ({attack.norm})"


def _are_legal(result: Any, x: Images, what: str) -> None:
    assert isinstance(result, np.ndarray), f"{what}: a {type(result).__name__} came back, not a NumPy array"
    assert result.shape == x.shape, f"{what}: {result.shape} came back where {x.shape} was given"
    assert result.dtype == np.float32, f"{what}: {result.dtype} came back, not float32"
    assert np.isfinite(result).all(), f"{what}: NaN or infinity came back"
    low, high = result.min(initial=0), result.max(initial=1)
    assert low >= -ROUNDING, f"{what}: {low:g} is below the box"
    assert high <= 1 + ROUNDING, f"{what}: {high:g} is above the box"


def _margins(x: Images, y: Labels) -> npt.NDArray[np.float64]:
    scores = Small().logits(x).astype(np.float64)
    own = scores[np.arange(len(y)), y].copy()
    scores[np.arange(len(y)), y] = -np.inf
    margins: npt.NDArray[np.float64] = own - scores.max(axis=1)
    return margins


class _Left(Exception):
    pass


def _state() -> dict[str, Any]:
    state: dict[str, Any] = {"NumPy's error handling": np.geterr(), "the working directory": os.getcwd()}
    torch = sys.modules.get("torch")
    if torch:
        state["torch's gradient mode"] = torch.is_grad_enabled()
        state["torch's default type"] = torch.get_default_dtype()
    return state


def _model(module: Any) -> dict[str, Any]:
    parameters = dict(module.named_parameters())
    return {
        "the training mode": [part.training for part in module.modules()],
        "what parameters want gradients": {name: parameter.requires_grad for name, parameter in parameters.items()},
        "the parameters": {name: parameter.detach().numpy().tobytes() for name, parameter in parameters.items()},
        "the gradients that parameters hold": {name: parameter.grad is None for name, parameter in parameters.items()},
    }


def _native(framework: str) -> Classifier | None:
    """The small network in an installed framework; else None. Keras must run on that backend."""
    if framework == "torch":
        module = _torch_module()
        if module is None:
            return None
        from sparring.adapters.frameworks.pytorch import TorchClassifier

        return TorchClassifier(module, input_shape=Small.input_shape, device="cpu")
    if not find_spec("keras") or not find_spec(framework.partition("-")[2]):
        return None
    import keras

    if framework != f"keras-{keras.backend.backend()}":
        return None
    from sparring.adapters.frameworks.keras import keras_classifier

    small = Small()
    hidden, scores = keras.layers.Dense(16, "tanh"), keras.layers.Dense(5, use_bias=False)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), hidden, scores])
    hidden.set_weights([small.a, -0.5 * small.a.sum(axis=0)])
    scores.set_weights([small.b])
    classifier: Classifier = keras_classifier(model)
    return classifier


def _torch_module() -> Any:
    if not find_spec("torch"):
        return None
    import torch

    small = Small()
    hidden, scores = torch.nn.Linear(64, 16), torch.nn.Linear(16, 5, bias=False)
    with torch.no_grad():
        hidden.weight.copy_(torch.from_numpy(small.a.T))
        hidden.bias.copy_(torch.from_numpy(-0.5 * small.a.sum(axis=0)))
        scores.weight.copy_(torch.from_numpy(small.b.T))
    return torch.nn.Sequential(torch.nn.Flatten(), hidden, torch.nn.Tanh(), scores)
