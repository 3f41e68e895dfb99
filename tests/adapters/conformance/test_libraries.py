"""The checks of libraries pass the four that are built in, and a right one from outside; each catches what it is for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import pytest

from sparring.adapters.attacks.library import (
    AttackMapping,
    Call,
    Library,
    RawAttack,
    Unsupported,
    library_names,
    load_library,
    maps,
)
from sparring.adapters.conformance import libraries
from sparring.adapters.conformance.classifiers import LIBRARY_CHECKS, LibraryCheck, library_checks_for
from sparring.adapters.protocol import Classifier, Counter, TorchNative, counted

BUILT_IN = [
    pytest.param(load_library(name), check, id=f"{name}-{check.__name__}")
    for name in library_names()
    for check in library_checks_for(load_library(name))
]


@pytest.mark.parametrize(("library", "check"), BUILT_IN)
def test_the_libraries_that_are_built_in_pass(library: Library, check: LibraryCheck) -> None:
    check(library)


# A right library, in NumPy (and, where it is told so, on torch's modules)


def step(classifier: Any, x: Any, y: Any, targeted: bool, size: float) -> Any:
    """Along the sign of the gradient of the label's logit."""
    up = np.eye(classifier.classes, dtype=np.float32)[y] * (1 if targeted else -1)
    return x + np.float32(size) * np.sign(classifier.vjp(x, up))


def near(x: Any, start: Any, eps: float) -> Any:
    return np.clip(np.clip(x, start - np.float32(eps), start + np.float32(eps)), 0, 1)


def fgsm(classifier: Any, call: Call, strength: float) -> Any:
    return near(step(classifier, call.x, call.labels, call.targeted, strength), call.x, strength)


def pgd(classifier: Any, call: Call, strength: float, steps: int, size: float, anywhere: bool, starts: int) -> Any:
    x = call.x + (np.random.uniform(-strength, strength, call.x.shape).astype(np.float32) if anywhere else 0)  # noqa: NPY002
    for _ in range(steps):
        x = near(step(classifier, x, call.labels, call.targeted, size), call.x, strength)
    return x


def noise(classifier: Any, call: Call, strength: float) -> Any:
    drawn = np.random.uniform(-strength, strength, call.x.shape).astype(np.float32)  # noqa: NPY002
    return near(call.x + drawn, call.x, strength)


def search(classifier: Any, call: Call, strength: float, queries: int, p: float, starts: int) -> Any:
    """Noise that lowers the label's logit."""
    rows, best, lowest = np.arange(len(call.x)), call.x, np.full(len(call.x), np.inf)
    for _ in range(queries):
        x = noise(classifier, replace(call, x=call.x), strength)
        loss = classifier.logits(x)[rows, call.labels] * (-1 if call.targeted else 1)
        better = loss < lowest
        best = np.where(better[:, None, None, None], x, best)
        lowest = np.where(better, loss, lowest)
    return best


FUNCTIONS: dict[str, Callable[..., Any]] = {"Fgsm": fgsm, "Pgd": pgd, "Noise": noise, "Search": search}
CLASSES = {
    name: RawAttack(
        name, "logits", signature(function).replace(parameters=list(signature(function).parameters.values())[2:])
    )
    for name, function in FUNCTIONS.items()
}
TABLE: dict[tuple[str, str], AttackMapping | Unsupported] = {
    ("fgsm", "linf"): maps("Fgsm", eps="strength"),
    ("pgd", "linf"): maps(
        "Pgd", eps="strength", steps="steps", eps_step="size", random_start="anywhere", restarts="starts"
    ),
    ("uniform-noise", "linf"): maps("Noise", eps="strength", targeted=Unsupported("noise aims at no class")),
    ("square", "linf"): maps("Search", eps="strength", queries="queries", p_init="p", restarts="starts"),
    ("deepfool", "l2"): Unsupported("not here"),
}
Change = Callable[[Any, Call, Any], Any]
"""(classifier, call, images) -> the images instead."""


class OfTorch:
    """The library's own door to torch."""

    def __init__(self, module: Any, classifier: Any) -> None:
        self.module, self.input_shape, self.classes = module, classifier.input_shape, classifier.classes

    def logits(self, x: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.module(torch.from_numpy(x)).numpy()

    def vjp(self, x: Any, cotangent: Any) -> Any:
        import torch

        images = torch.tensor(x, requires_grad=True)
        (gradient,) = torch.autograd.grad(self.module(images), images, torch.from_numpy(cotangent))
        return gradient.numpy()


def library(change: Change | None = None, **fields: Any) -> Library:
    """The right library, its images changed after the attack, with other fields."""

    @contextmanager
    def session(classifier: Classifier, route: str, counter: Counter) -> Iterator[Callable[[Call], Any]]:
        def run_on(seen: Any) -> Callable[[Call], Any]:
            def run(call: Call) -> Any:
                images = FUNCTIONS[call.target](seen, call, **call.kwargs)
                return images if change is None else change(seen, call, images)

            return run

        if route == "native":
            assert isinstance(classifier, TorchNative)
            with classifier.torch_module(counter) as module:
                yield run_on(OfTorch(module, classifier))
        else:
            yield run_on(counted(classifier, counter))

    default: dict[str, Any] = {
        "name": "mine",
        "package": "numpy",
        "requires": "numpy",
        "attacks": TABLE,
        "session": session,
        "raw": lambda: CLASSES,
        "native": frozenset({"torch"}),
        "reconciliations": {"bolder": bolder},
    }
    return Library(**{**default, **fields})


@contextmanager
def bolder(call: Call) -> Iterator[Call]:
    """A reconciliation that cleans up behind itself."""
    before, FUNCTIONS["Fgsm"] = FUNCTIONS["Fgsm"], lambda classifier, call, strength: call.x
    try:
        yield call
    finally:
        FUNCTIONS["Fgsm"] = before


@contextmanager
def untidy(call: Call) -> Iterator[Call]:
    """One that does so only where nothing goes wrong."""
    before, FUNCTIONS["Fgsm"] = FUNCTIONS["Fgsm"], lambda classifier, call, strength: call.x
    yield call
    FUNCTIONS["Fgsm"] = before


@pytest.mark.parametrize("check", library_checks_for(library()), ids=lambda check: check.__name__)
def test_a_right_library_passes(check: LibraryCheck) -> None:
    check(library())


# Each with one fault


def table(**changes: AttackMapping | Unsupported) -> Mapping[tuple[str, str], AttackMapping | Unsupported]:
    norms = {"deepfool": "l2"}
    return {**TABLE, **{(name, norms.get(name, "linf")): entry for name, entry in changes.items()}}


def writes_to_labels(classifier: Any, call: Call, images: Any) -> Any:
    call.labels[:] = 0
    return images


def writes_to_images(classifier: Any, call: Call, images: Any) -> Any:
    call.x[:] = images
    return images


def leaves_numpy_silent(classifier: Any, call: Call, images: Any) -> Any:
    np.seterr(divide="ignore" if np.geterr()["divide"] == "warn" else "warn")
    return images


def leaves_another_folder(classifier: Any, call: Call, images: Any) -> Any:
    os.chdir("/" if os.getcwd() != "/" else "/tmp")
    return images


def leaves_gradients_off(classifier: Any, call: Call, images: Any) -> Any:
    import torch

    torch.set_grad_enabled(not torch.is_grad_enabled())
    return images


def trains_the_model(classifier: Any, call: Call, images: Any) -> Any:
    if isinstance(classifier, OfTorch):
        next(classifier.module.parameters()).data.add_(0.1)
    return images


def asks_more(classifier: Any, call: Call, images: Any) -> Any:
    (classifier.inner if hasattr(classifier, "inner") else classifier).logits(call.x)
    return images


def prints(classifier: Any, call: Call, images: Any) -> Any:
    print("attacking", file=sys.stderr)
    return images


def fails_without_images(classifier: Any, call: Call, images: Any) -> Any:
    return images if len(images) else np.zeros((0, 1, 1, 1), np.float32)


def only_bridged(classifier: Any, call: Call, images: Any) -> Any:
    return images[:, :, 0] if isinstance(classifier, OfTorch) else images


def needs_gradients_for_the_search(classifier: Any, call: Call, images: Any) -> Any:
    if call.target == "Search":
        classifier.vjp(call.x, np.zeros((len(call.x), classifier.classes), np.float32))
    return images


DEFECTS: list[tuple[str, Library]] = [
    ("check_table", library(attacks=table(deepfool=Unsupported(" ")))),
    ("check_table", library(attacks={**TABLE, ("fsgm", "linf"): maps("Fgsm", eps="strength")})),
    ("check_parameters", library(attacks=table(square=maps("Search", eps="strength", queries="queries")))),
    ("check_parameters", library(attacks=table(fgsm=maps("Fgsm", eps="strength", steps="steps")))),
    ("check_parameters", library(attacks=table(fgsm=maps("Fgsm", eps="strength", targeted=Unsupported(""))))),
    (
        "check_signatures",
        library(
            attacks=table(
                square=maps("Search", eps="strength", queries="queries", p_init=Unsupported("none"), restarts="starts")
            )
        ),
    ),
    ("check_signatures", library(attacks=table(fgsm=maps("Fgsm", eps="strength", pinned={"speed": 1})))),
    ("check_signatures", library(attacks=table(fgsm=maps("Fsgm", eps="strength")))),
    ("check_images_are_legal", library(lambda classifier, call, images: images.astype(np.float64))),
    ("check_images_are_legal", library(lambda classifier, call, images: images[:, :, 1:])),
    ("check_images_are_legal", library(lambda classifier, call, images: images + np.float32(0.7))),
    ("check_images_are_legal", library(lambda classifier, call, images: images - np.float32(0.7))),
    ("check_images_are_legal", library(lambda classifier, call, images: images * np.float32(np.nan))),
    ("check_images_are_legal", library(lambda classifier, call, images: images.tolist())),
    ("check_budget", library(lambda classifier, call, images: call.x + 2 * (images - call.x))),
    ("check_empty_batch", library(fails_without_images)),
    ("check_moves_from_the_label", library(lambda classifier, call, images: call.x)),
    (
        "check_moves_to_the_target",
        library(lambda classifier, call, images: 2 * call.x - images if call.targeted else images),
    ),
    (
        "check_same_seed",
        library(
            lambda classifier, call, images: np.clip(
                images + np.float32(np.random.default_rng().uniform(0, 0.01)), 0, 1
            )
        ),
    ),
    ("check_other_seed", library(lambda classifier, call, images: fgsm(classifier, call, call.kwargs["strength"]))),
    ("check_counts", library(asks_more)),
    ("check_counts", library(needs_gradients_for_the_search)),
    ("check_runs_without_gradients", library(needs_gradients_for_the_search)),
    ("check_frameworks", library(only_bridged)),
    ("check_frameworks", library(native=frozenset({"jax"}))),
    ("check_leaves_arguments_alone", library(writes_to_images)),
    ("check_leaves_arguments_alone", library(writes_to_labels)),
    ("check_leaves_the_process_alone", library(leaves_numpy_silent)),
    ("check_leaves_the_process_alone", library(leaves_another_folder)),
    ("check_leaves_the_process_alone", library(leaves_gradients_off)),
    ("check_leaves_the_model_alone", library(trains_the_model)),
    ("check_is_quiet", library(prints)),
    ("check_reconciliations_are_undone", library(reconciliations={"bolder": untidy})),
]


@pytest.fixture
def restored() -> Iterator[None]:
    """The faults that are planted are not to outlive their test."""
    import torch

    folder, errors, functions, gradients = os.getcwd(), np.geterr(), dict(FUNCTIONS), torch.is_grad_enabled()
    yield
    os.chdir(folder)
    np.seterr(**errors)  # type: ignore[arg-type]
    FUNCTIONS.update(functions)
    torch.set_grad_enabled(gradients)


@pytest.mark.parametrize(
    ("name", "faulty"), DEFECTS, ids=[f"{index}-{name}" for index, (name, _) in enumerate(DEFECTS)]
)
def test_a_fault_is_caught(name: str, faulty: Library, restored: None) -> None:
    check = getattr(libraries, name)
    assert check in library_checks_for(faulty)
    with pytest.raises(AssertionError):
        check(faulty)


def test_every_check_has_something_that_it_catches() -> None:
    assert {name for name, _ in DEFECTS} == {check.__name__ for check in LIBRARY_CHECKS}


def test_checks_go_by_what_a_library_has() -> None:
    bare = library_checks_for(library(native=frozenset(), reconciliations={}))
    assert {check.__name__ for check in set(LIBRARY_CHECKS) - set(bare)} == {
        "check_frameworks",
        "check_leaves_the_model_alone",
        "check_reconciliations_are_undone",
    }
