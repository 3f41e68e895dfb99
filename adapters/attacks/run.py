"""One attack of one library on one classifier: run it batch by batch, then judge the images ourselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters import arrays
from sparring.adapters.attacks.inputs import check_box, check_labels, labels_of_call, training_images
from sparring.adapters.attacks.judge import Judge, legal, samples
from sparring.adapters.attacks.library import (
    AttackMapping,
    Call,
    Context,
    Crafted,
    Fit,
    Library,
    Route,
    Run,
    library_names,
    load_library,
)
from sparring.adapters.attacks.request import Request, why_not
from sparring.adapters.attacks.request import request as checked_request
from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.errors import InputError, LibraryError, NotSupported, SparringError, first_line, unknown
from sparring.adapters.protocol import (
    Classifier,
    Counter,
    Images,
    Labels,
    Logits,
    TensorflowNative,
    TorchNative,
    lacks,
)
from sparring.adapters.wrappers.units import IN_UNITS_OF_THE_IMAGE, View

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Attacked:
    """The result of an attack: adversarial images and, for each image, everything that a score is made of.

    - ``images``: float32, (N, C, H, W), in [0, 1].
    - ``samples``: arrays (N,): ``y``, ``target`` (-1 without one), ``pred_clean``, ``pred_adv``, ``success`` (a
      targeted attack reached its target, another left y), ``l0``, ``l1``, ``l2``, ``linf``.
    - ``logits_clean`` and ``logits_adv``: float32, (N, classes), from which the predictions follow.
    - ``forwards`` and ``backwards``: all images that the library passed through the classifier.
    - ``seconds``: the library's own time. ``prediction_seconds``: the time of ``logits_adv``.
    - ``notes`` say where the library could not do exactly what the request says.
    - ``extras``: further arrays, such as a patch.
    """

    images: Images
    samples: dict[str, np.ndarray]
    logits_clean: Logits
    logits_adv: Logits
    forwards: int
    backwards: int
    seconds: float
    prediction_seconds: float
    library: str
    library_version: str
    route: Route
    call: dict[str, Any]
    notes: tuple[str, ...]
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a sample."""
        import pandas as pd

        return pd.DataFrame(self.samples)


def attack(
    classifier: Classifier,
    images: Images,
    labels: Sequence[int] | np.ndarray,
    name: str,
    *,
    library: str | None = None,
    norm: str | None = None,
    targeted: bool = False,
    targets: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
    route: Route | None = None,
    batch_size: int = 128,
    progress: Progress | None = None,
    started: Callable[[], None] | None = None,
    params: Mapping[str, Any] | None = None,
    reconcile: Sequence[str] = (),
    judge: Classifier | None = None,
    fit: tuple[Images, Labels] | None = None,
    shown: View | None = None,
    **parameters: Any,
) -> Attacked:
    """Attack images (float32, (N, C, H, W), in [0, 1]) with one attack of one library.

    ``name`` is canonical, such as ``pgd``: then ``library`` says whose it is, and ``norm`` which of several. Or it is
    ``library:ClassName``, which takes the library's own keyword arguments. ``params`` holds parameters of the attack,
    as keywords do; those whose name is also an argument of this function (``norm``, ``seed``, ...) must go there.

    - ``targets`` (N,): the classes to reach. A targeted attack without them draws another class for each image from
      ``seed``.
    - ``route``: ``native`` or ``bridged``; by default native where there is such a route.
    - ``started()`` is called when the library is loaded, ``progress(done, total)`` after each batch.
    - ``reconcile``: ids of the ledger (``ledger.yaml``). The library runs without these differences from the attack's
      source.
    - ``judge`` decides before and after in place of ``classifier``, which then is what the attacker sees.
    - ``fit``: other images and their labels, on which an attack that is trained first (a patch) is trained. If that is
      targeted, ``targets`` must all be one class.
    - ``shown``: a view of ``classifier`` (``wrappers/units.py``). The library gets its images and its units.

    Raises ``InputError`` for bad images, labels, names or parameters, ``NotSupported`` where the library or the
    classifier lacks what the attack needs, ``LibraryError`` where the library crashes or returns no images.
    """
    request = checked_request(
        name, norm=norm, targeted=targeted or targets is not None, params={**(params or {}), **parameters}
    )
    bridge = _library(request, library)
    y = check_labels(labels, len(images), classifier.classes, "labels")
    check_box(images, classifier.input_shape)
    goals = labels_of_call(request, y, targets, classifier.classes, seed)
    trained_on = training_images(request, fit, goals, classifier)
    version = bridge.version()
    view = shown or View(classifier, _unchanged, _unchanged)
    route = _route(bridge, view.classifier, route)
    _check_support(bridge, request, view.classifier)
    in_units = _in_units(request, view)
    _check_reconciliations(bridge, reconcile)

    adversarial, outcomes, counter = arrays.empty_like(images), [], Counter()
    judging = Judge(classifier if judge is None else judge)
    with bridge.session(view.classifier, route, counter) as run:
        if started is not None:
            started()
        for index, start in enumerate(range(0, len(images), batch_size)):
            part = slice(start, start + batch_size)
            x = arrays.own(images[part])
            judging.see_before(x)
            batch = _Batch(view.to(x), goals[part], seed + index, trained_on, view.bounded)
            crafted, outcome = _craft(bridge, run, in_units, classifier, batch, reconcile)
            adversarial[part] = view.back(crafted)
            outcomes.append(outcome)
            judging.see_after(adversarial[part])
            arrays.let_go(images, adversarial)
            if images.nbytes >= arrays.LARGE:
                arrays.trim()
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    logits = judging.logits()
    return Attacked(
        images=adversarial,
        samples=samples(images, adversarial, logits, y, goals if request.targeted else None),
        logits_clean=logits[0],
        logits_adv=logits[1],
        forwards=counter.forwards,
        backwards=counter.backwards,
        seconds=sum((outcome.seconds for outcome in outcomes), 0.0),
        prediction_seconds=judging.seconds,
        library=bridge.name,
        library_version=version,
        route=route,
        call=outcomes[-1].call if outcomes else {},
        notes=tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.notes)),
        extras=_extras(outcomes),
    )


@contextmanager
def crafting(
    classifier: Classifier, request: Request, library: str, *, route: Route | None = None
) -> Iterator[Callable[[Images, Labels, int], Images]]:
    """One untargeted attack, opened once. Inside the context: images, labels and a seed -> adversarial images.

    It serves callers that attack batch by batch and judge nothing, as adversarial training does. The classifier may
    change between two batches. The images lie in the box and within the budget. Raises as ``attack`` does.
    """
    bridge = load_library(library)
    route = _route(bridge, classifier, route)
    _check_support(bridge, request, classifier)
    training_images(request, None, np.zeros(0, np.int64), classifier)
    with bridge.session(classifier, route, Counter()) as run:

        def craft(x: Images, y: Labels, seed: int) -> Images:
            if not len(x):
                return x
            labels = labels_of_call(request, y, None, classifier.classes, seed)
            batch = _Batch(x, labels, seed, of_tensorflow=route == "native")
            return _craft(bridge, run, request, classifier, batch)[0]

        yield craft


@dataclass(frozen=True)
class _Batch:
    """The input of one call of a library; ``labels`` are the classes to reach where the request ``aims``."""

    x: Images
    labels: Labels
    seed: int
    fit: Fit | None = None
    bounded: bool = True
    of_tensorflow: bool = True


@dataclass(frozen=True)
class _Outcome:
    """The result of one batch, without its images."""

    call: dict[str, Any]
    notes: list[str]
    seconds: float
    samples: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]


def _craft(
    library: Library, run: Run, request: Request, classifier: Classifier, batch: _Batch, reconcile: Sequence[str] = ()
) -> tuple[Images, _Outcome]:
    """Legal adversarial images of one batch, and the rest of its result."""
    x = batch.x
    context = Context(request.params, classifier.input_shape, classifier.classes, len(x), batch.seed, request.targeted)
    target, kwargs, notes = _in_their_words(library, request, context)
    canonical = context if request.canonical else None
    call = Call(target, kwargs, x, batch.labels, request.aims, request.canonical, canonical, batch.fit)
    begin = time.perf_counter()
    with seeded(batch.seed, of_tensorflow=batch.of_tensorflow):
        crafted = run_call(library, run, call, reconcile)
    seconds = time.perf_counter() - begin
    images, corrections = legal(library, request, x, crafted.images, batch.bounded)
    words = {"class": target, "kwargs": {key: _plain(value) for key, value in kwargs.items()}}
    return images, _Outcome(words, [*notes, *corrections], seconds, crafted.samples, crafted.whole)


def _extras(outcomes: Sequence[_Outcome]) -> dict[str, np.ndarray]:
    """The further arrays: those of the whole attack, and those of each image, joined over the batches."""
    extras = {name: array for outcome in outcomes for name, array in outcome.whole.items()}
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.samples):
        extras[name] = np.concatenate([np.asarray(outcome.samples[name]) for outcome in outcomes])
    return extras


def _library(request: Request, name: str | None) -> Library:
    name = name or request.raw_library
    if name is None:
        raise InputError(f"{request.name} needs a library: library= one of {', '.join(library_names())}")
    return load_library(name)


def _check_reconciliations(library: Library, names: Sequence[str]) -> None:
    for name in names:
        if name not in library.reconciliations:
            raise InputError(unknown(f"reconciliation of {library.name}", name, library.reconciliations))


def _unchanged(images: Images) -> Images:
    return images


def _in_units(request: Request, view: View) -> Request:
    """The request with its lengths in the units of the library's images."""
    if view.unit == 1:
        return request
    if request.canonical is None:
        raise NotSupported(f"{request.name}: a library's own parameters can't be put in units of the normalized input")
    return replace(request, params=_scaled(request.params, view.unit))


def _scaled(params: Mapping[str, Any], unit: float) -> dict[str, Any]:
    values = {key: value * unit if key in IN_UNITS_OF_THE_IMAGE else value for key, value in params.items()}
    if "attacks" in values:  # those that a worst-of is made of
        values["attacks"] = [_scaled(part, unit) for part in values["attacks"]]
    return values


def _route(library: Library, classifier: Classifier, route: Route | None) -> Route:
    native = (isinstance(classifier, TorchNative) and "torch" in library.native) or (
        isinstance(classifier, TensorflowNative) and "keras-tensorflow" in library.native
    )
    if route == "native" and not native:
        raise NotSupported(f"{library.name} has no native route to a {type(classifier).__name__}")
    return route or ("native" if native else "bridged")


def _check_support(library: Library, request: Request, classifier: Classifier) -> None:
    reason = why_not(library, request, getattr(classifier, "framework", "torch"), lacks(classifier))
    if reason is not None:
        raise NotSupported(reason)


def _in_their_words(library: Library, request: Request, context: Context) -> tuple[str, dict[str, Any], list[str]]:
    if request.canonical is None:
        return request.name.partition(":")[2], dict(request.params), []
    mapping = library.find(request.canonical)
    assert isinstance(mapping, AttackMapping)  # _check_support has checked it
    return (mapping.target, *mapping.translate(context))


def run_call(library: Library, run: Run, call: Call, reconcile: Sequence[str] = ()) -> Crafted:
    """Run one call in a library's session. Raises ``LibraryError`` for an error of the library's own."""
    try:
        with ExitStack() as stack:
            for entry in reconcile:
                call = stack.enter_context(library.reconciliations[entry](call))
            result = run(call)
            return result if isinstance(result, Crafted) else Crafted(result)
    except (SparringError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise LibraryError(f"{library.name}'s {call.target} raised {reason}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | type(None)):
        return value if value != float("inf") else "inf"
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value).split(" object at")[0].lstrip("<")
