"""One attack of one library on one classifier: run it, then judge the images ourselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparring.adapters import arrays as big
from sparring.adapters.attacks.distances import distances, project
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
from sparring.adapters.attacks.request import Request, request, why_not
from sparring.adapters.attacks.seeding import seeded
from sparring.adapters.errors import InputError, LibraryError, NotSupported, SparringError, unknown
from sparring.adapters.protocol import (
    Classifier,
    Counter,
    Images,
    Labels,
    Logits,
    TensorflowNative,
    TorchNative,
    check_images,
    lacks,
)
from sparring.adapters.wrappers.units import IN_UNITS_OF_THE_IMAGE, View

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Attacked:
    """What an attack left: adversarial images and, per sample, everything that a score is made of.

    ``images``: float32, the shape of the attacked images, in [0, 1]. ``samples``: arrays of length N: ``y``, ``target``
    (-1 without one), ``pred_clean``, ``pred_adv``, ``success`` (of a targeted attack: the target was reached; else: no
    longer y), ``l0``, ``l1``, ``l2``, ``linf``. ``forwards`` and ``backwards`` are images passed through the classifier
    by the library, in total; ``seconds`` is the library's own time. ``notes`` say where the library could not do
    exactly what was asked. ``logits_clean`` and ``logits_adv``, float32, (N, classes), are what the decisions come
    from; ``prediction_seconds`` is the time that the latter took. ``extras``: what else the attack has to show, such as
    a patch.
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

    ``name`` is canonical (``pgd``; then ``library`` says whose, and ``norm`` which) or ``library:ClassName`` with the
    library's own keyword arguments; those that are also called ``norm``, ``seed``, ``batch_size`` or so go into
    ``params``, as any parameter may. ``targets`` (N,) are the classes to reach; a targeted attack without them draws
    another class for each image from ``seed``. ``route``: ``native`` or ``bridged``; native where there is one.
    ``progress(done, total)`` is called after each batch, ``started()`` when the library is loaded. ``reconcile`` holds
    ids of the ledger (``ledger.yaml``): the library runs with these differences from the attack's source taken away.
    ``judge`` decides before and after in place of ``classifier``, which is then only what the attacker sees of it.
    ``fit`` are other images with their labels, on which an attack that is trained first (a patch) is trained; if it is
    targeted, ``targets`` must all be one class. ``shown`` is a view of ``classifier`` (``view.py``): the library gets
    that, its images and its units.

    Raises ``InputError`` for bad images, labels, names or parameters, ``NotSupported`` where the library or the
    classifier lacks what is asked, ``LibraryError`` where the library crashes or returns something that isn't images.
    """
    targeted = targeted or targets is not None
    asked = request(name, norm=norm, targeted=targeted, params={**(params or {}), **parameters})
    if library is None:
        if asked.raw_library is None:
            raise InputError(f"say whose {name}: library= one of {', '.join(library_names())}")
        library = asked.raw_library
    chosen = load_library(library)
    y = check_labels(labels, len(images), classifier.classes, "labels")
    _check_box(images, classifier.input_shape)
    goals = _goals(asked, y, targets, classifier.classes, seed)
    trained_on = _fit(asked, fit, goals, classifier)
    judge = classifier if judge is None else judge
    counter, version = Counter(), chosen.version()
    seen = shown.classifier if shown is not None else classifier
    taken = _route(chosen, seen, route)
    _check_support(chosen, asked, seen)
    told = _in_units(asked, shown)
    for entry in reconcile:
        if entry not in chosen.reconciliations:
            raise InputError(unknown(f"reconciliation of {chosen.name}", entry, chosen.reconciliations))

    adversarial = big.empty_like(images)
    clean_logits, adv_logits = [], []
    prediction_seconds = 0.0
    notes: dict[str, None] = {}
    call: dict[str, Any] = {}
    seconds = 0.0
    by_sample: dict[str, list[np.ndarray]] = {}
    extras: dict[str, np.ndarray] = {}
    with chosen.session(seen, taken, counter) as run:
        if started is not None:
            started()
        for index, start in enumerate(range(0, len(images), batch_size)):
            part = slice(start, start + batch_size)
            x = big.own(images[part])
            handed = shown.to(x) if shown is not None else x
            context = Context(told.params, classifier.input_shape, classifier.classes, len(x), seed + index, targeted)
            target, kwargs, said = _in_their_words(chosen, told, context)
            notes.update(dict.fromkeys(said))
            call = {"class": target, "kwargs": {key: _plain(value) for key, value in kwargs.items()}}
            aims = targeted or (asked.canonical is not None and asked.canonical.aims)
            clean_logits.append(judge.logits(x))
            begin = time.perf_counter()
            whose = goals[part] if aims else y[part]
            named = context if asked.canonical else None
            asks = Call(target, kwargs, handed, whose, aims, asked.canonical, named, trained_on)
            with seeded(seed + index):
                crafted = _run(chosen, run, asks, reconcile)
            seconds += time.perf_counter() - begin
            for name, array in crafted.samples.items():
                by_sample.setdefault(name, []).append(np.asarray(array))
            extras |= crafted.whole
            legal, judged = _legal(chosen, told, handed, crafted.images, shown is None or shown.bounded)
            adversarial[part] = shown.back(legal) if shown is not None else legal
            notes.update(dict.fromkeys(judged))
            # in the batches of the attack: DeepFool's images lie on the boundary to within rounding
            begin = time.perf_counter()
            adv_logits.append(judge.logits(adversarial[part]))
            prediction_seconds += time.perf_counter() - begin
            big.let_go(images, adversarial)
            if images.nbytes >= big.LARGE:
                big.trim()
            if progress is not None:
                progress(min(start + batch_size, len(images)), len(images))
    logits_clean, logits_adv = _together(clean_logits, judge.classes), _together(adv_logits, judge.classes)
    pred_clean, pred_adv = _decisions(logits_clean), _decisions(logits_adv)
    samples: dict[str, np.ndarray] = {
        "y": y,
        "target": goals if targeted else np.full_like(y, -1),
        "pred_clean": pred_clean,
        "pred_adv": pred_adv,
        "success": pred_adv == goals if targeted else pred_adv != y,
        **_distances(images, adversarial),
    }
    return Attacked(
        adversarial, samples, logits_clean, logits_adv, counter.forwards, counter.backwards, seconds,
        prediction_seconds, chosen.name, version, taken, call, tuple(notes),
        {**extras, **{name: np.concatenate(arrays) for name, arrays in by_sample.items()}},
    )  # fmt: skip


@contextmanager
def crafting(
    classifier: Classifier, asked: Request, library: str, *, route: Route | None = None
) -> Iterator[Callable[[Images, Labels, int], Images]]:
    """One untargeted attack, opened once: within the context, images and labels and a seed -> adversarial images.

    For whoever attacks batch by batch and judges nothing, as adversarial training does: the classifier may change
    between two batches. The images lie in the box and within the budget. Raises as ``attack`` does.
    """
    chosen = load_library(library)
    taken = _route(chosen, classifier, route)
    _check_support(chosen, asked, classifier)
    _fit(asked, None, np.zeros(0, np.int64), classifier)
    aims = asked.canonical is not None and asked.canonical.aims
    with chosen.session(classifier, taken, Counter()) as run:

        def craft(x: Images, y: Labels, seed: int) -> Images:
            if not len(x):
                return x
            context = Context(asked.params, classifier.input_shape, classifier.classes, len(x), seed, False)
            target, kwargs, _ = _in_their_words(chosen, asked, context)
            goals = _goals(asked, y, None, classifier.classes, seed) if aims else y
            call = Call(target, kwargs, x, goals, aims, asked.canonical, context if asked.canonical else None)
            with seeded(seed, of_tensorflow=taken == "native"):
                return _legal(chosen, asked, x, _run(chosen, run, call, ()).images)[0]

        yield craft


def _check_box(images: Any, input_shape: tuple[int, int, int]) -> None:
    if not isinstance(images, np.ndarray) or not images.ndim:
        check_images(images, input_shape)
    for (piece,) in big.pieces(images):
        check_images(piece, input_shape)
        if piece.size and (piece.min() < 0 or piece.max() > 1):
            raise InputError(f"images must lie in [0, 1], but go from {piece.min():g} to {piece.max():g}")


def _distances(images: Images, adversarial: Images) -> dict[str, np.ndarray]:
    each = [distances(*piece) for piece in big.pieces(images, adversarial)]
    return {name: np.concatenate([one[name] for one in each]) for name in each[0]}


def check_labels(labels: Any, n: int, classes: int, what: str) -> Labels:
    """The labels as int64 (n,). Raises ``InputError`` for another length, type, or a class that the model lacks."""
    y = np.asarray(labels)
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise InputError(f"{what} must be {n} whole numbers, not {y.dtype} of shape {y.shape}")
    if n and (y.min() < 0 or y.max() >= classes):
        bad = y[(y < 0) | (y >= classes)][0]
        raise InputError(f"{what}: {bad} is out of range, for the model has {classes} classes, 0 to {classes - 1}")
    return y.astype(np.int64)


def _goals(asked: Request, y: Labels, targets: Any, classes: int, seed: int) -> Labels:
    if not asked.targeted:
        return (y + 1) % classes  # only for attacks that always aim at a class
    if targets is not None:
        return check_labels(targets, len(y), classes, "targets")
    return (y + np.random.default_rng(seed).integers(1, classes, len(y))) % classes


def _fit(asked: Request, fit: tuple[Images, Labels] | None, goals: Labels, classifier: Classifier) -> Fit | None:
    """What an attack that is trained first is trained on, with the labels to leave or to reach."""
    if asked.canonical is None or not asked.canonical.fits:
        return None
    if fit is None or not len(fit[0]):
        raise InputError(f"{asked.name} is trained on other images first, and there are none: fit=(images, labels)")
    x, labels = fit
    check_images(x, classifier.input_shape)
    if not asked.targeted:
        return Fit(x, check_labels(labels, len(x), classifier.classes, "labels of fit"))
    if len(np.unique(goals)) > 1:
        raise InputError(f"{asked.name} is one for all images: targets must all be one class")
    return Fit(x, np.full(len(x), goals[0] if len(goals) else 0, np.int64))


def _in_units(asked: Request, shown: View | None) -> Request:
    """The request with its lengths in the units of what the library is handed."""
    if shown is None or shown.unit == 1:
        return asked
    if asked.canonical is None:
        raise NotSupported(f"{asked.name}: a library's own parameters can't be put in units of the normalised input")
    return replace(asked, params=_scaled(asked.params, shown.unit))


def _scaled(params: Mapping[str, Any], unit: float) -> dict[str, Any]:
    told = {key: value * unit if key in IN_UNITS_OF_THE_IMAGE else value for key, value in params.items()}
    if "attacks" in told:  # those that a worst-of is made of
        told["attacks"] = [_scaled(part, unit) for part in told["attacks"]]
    return told


def _route(library: Library, classifier: Classifier, route: Route | None) -> Route:
    native = (isinstance(classifier, TorchNative) and "torch" in library.native) or (
        isinstance(classifier, TensorflowNative) and "keras-tensorflow" in library.native
    )
    if route == "native" and not native:
        raise NotSupported(f"{library.name} has no native route to a {type(classifier).__name__}")
    return route or ("native" if native else "bridged")


def _check_support(library: Library, asked: Request, classifier: Classifier) -> None:
    reason = why_not(library, asked, getattr(classifier, "framework", "torch"), lacks(classifier))
    if reason is not None:
        raise NotSupported(reason)


def _in_their_words(library: Library, asked: Request, context: Context) -> tuple[str, dict[str, Any], list[str]]:
    if asked.canonical is None:
        return asked.name.partition(":")[2], dict(asked.params), []
    mapping = library.find(asked.canonical)
    assert isinstance(mapping, AttackMapping)  # _check_support has seen to it
    return (mapping.target, *mapping.translate(context))


def _run(library: Library, run: Run, call: Call, reconcile: Sequence[str]) -> Crafted:
    try:
        with ExitStack() as stack:
            for entry in reconcile:
                call = stack.enter_context(library.reconciliations[entry](call))
            result = run(call)
            return result if isinstance(result, Crafted) else Crafted(result)
    except (SparringError, MemoryError):
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise LibraryError(f"{library.name}'s {call.target} raised {type(error).__name__}: {first}") from error


def _legal(library: Library, asked: Request, x: Images, result: Any, bounded: bool = True) -> tuple[Images, list[str]]:
    """The library's images as legal ones: in the box, within the budget; and notes on what had to be mended."""
    if not isinstance(result, np.ndarray) or result.shape != x.shape:
        got = f"{result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise LibraryError(f"{library.name} returned {got} where images of shape {x.shape} were due")
    broken = ~np.isfinite(result).all(axis=(1, 2, 3))
    if broken.any():
        raise LibraryError(f"{library.name} returned NaN or infinity in {broken.sum()} of {len(x)} images")
    if not bounded:
        return result.astype(np.float32, copy=False), []
    boxed = np.clip(result, 0, 1).astype(np.float32, copy=False)
    if asked.eps is None or asked.norm not in ("linf", "l2") or (asked.canonical and asked.canonical.goal != "budget"):
        return boxed, []
    legal, moved, excess = project(x, boxed, asked.norm, asked.eps)
    if not moved.any():
        return legal, []
    return legal, [f"{library.name} left the budget by up to {excess:.2g}: such images were moved back"]


def _together(logits: list[Logits], classes: int) -> Logits:
    whole = np.concatenate([np.zeros((0, classes), np.float32), *logits])
    if not np.isfinite(whole).all():
        raise LibraryError("the classifier gave NaN or infinite logits")
    return whole


def _decisions(logits: Logits) -> Labels:
    decisions: Labels = logits.argmax(axis=1).astype(np.int64)
    return decisions


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | type(None)):
        return value if value != float("inf") else "inf"
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value).split(" object at")[0].lstrip("<")
