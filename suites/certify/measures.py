"""What a worker process measures of one model for a certificate; images and results pass through .npy files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.attacks.run import attack
from sparring.adapters.protocol import Classifier, Differentiable
from sparring.models.layers.layer import Layer
from sparring.models.layers.record import record
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_network
from sparring.suites.certify.certificate import compare_gradients

BATCH = 50
LIBRARY = "foolbox"
"""Whose FGSM and PGD make the images whose verdicts are compared, over the protocol on every runtime."""
NUDGES = [2.0**-24 * 2**k for k in range(7) for _ in range(6)]
"""By how much pixels are moved to see whether an image lies at a kink: a rounding of a pixel, and up to 4e-6."""

Progress = Callable[[int, int, str], None]
Answer = dict[str, Any]


def logits(_: ModelRef, classifier: Classifier, folder: Path, asked: Mapping[str, Any], progress: Progress) -> Answer:
    """The logits of ``asked['images']``, float32 (N, classes); and whether the model has gradients."""
    x = _read(folder, asked["images"])
    found = _made(folder, asked["out"], (len(x), classifier.classes))
    for part in _parts(len(x), "logits", progress):
        found[part] = classifier.logits(np.array(x[part]))
    return {"differentiable": isinstance(classifier, Differentiable)}


def gradients(_: ModelRef, classifier: Any, folder: Path, asked: Mapping[str, Any], progress: Progress) -> Answer:
    """The vjps of ``asked['cotangents']`` at the images, float32 (N, C, H, W)."""
    x, cotangents = _read(folder, asked["images"]), _read(folder, asked["cotangents"])
    found = _made(folder, asked["out"], x.shape)
    for part in _parts(len(x), "gradients", progress):
        found[part] = classifier.vjp(np.array(x[part]), np.array(cotangents[part]))
    return {}


def attacked(_: ModelRef, classifier: Classifier, folder: Path, asked: Mapping[str, Any], progress: Progress) -> Answer:
    """The adversarial images of ``asked['attack']``, with its parameters, made of the first ``asked['count']``."""
    x, y = (np.array(_read(folder, asked[key])[: asked["count"]]) for key in ("images", "labels"))
    done = attack(
        classifier, x, y, asked["attack"], library=LIBRARY, norm="linf", route="bridged", batch_size=BATCH,
        progress=lambda done, total: progress(done, total, asked["attack"]), params=asked["params"],
    )  # fmt: skip
    _made(folder, asked["out"], x.shape)[:] = done.images
    return {}


def kinks(_: ModelRef, classifier: Any, folder: Path, asked: Mapping[str, Any], progress: Progress) -> Answer:
    """The least cosine of each chosen image's gradient with its own after the pixels moved by a rounding or some.

    Float32 (N,). Moves count that change no logit by more than ``asked['allowed']``, one number an image.
    """
    chosen, allowed = list(asked["chosen"]), np.asarray(asked["allowed"])
    x, cotangents = (np.array(_read(folder, asked[key])[chosen]) for key in ("images", "cotangents"))
    least = np.ones(len(x), np.float32)
    before = classifier.logits(x), classifier.vjp(x, cotangents)
    rng = np.random.default_rng(0)
    for done, size in enumerate(NUDGES):
        moved = x + np.float32(size) * rng.choice(np.array([-1, 1], np.float32), x.shape)
        small = np.abs(classifier.logits(moved) - before[0]).max(axis=1) <= allowed
        cosines = compare_gradients(before[1], classifier.vjp(moved, cotangents)).cosines
        least = np.where(small, np.minimum(least, cosines), least)
        progress(done + 1, len(NUDGES), "nudges")
    _made(folder, asked["out"], least.shape)[:] = least
    return {}


def layers(ref: ModelRef, classifier: Classifier, folder: Path, asked: Mapping[str, Any], progress: Progress) -> Answer:
    """The layers of the network on the images: their arrays in an .npz file, the rest in the answer."""
    network = None if ref.members else open_network(ref)
    members = [member.name for member in ref.members]
    found, why = record(network, classifier, np.array(_read(folder, asked["images"])), ref.options, members)
    arrays, told = {}, []
    for i, layer in enumerate(found):
        held = {key: value for key, value in layer.facts.items() if isinstance(value, np.ndarray)}
        arrays.update({f"{i}": layer.values, **{f"{i} {key}": value for key, value in held.items()}})
        plain = {key: value for key, value in layer.facts.items() if key not in held}
        told.append({"name": layer.name, "kind": layer.kind, "takes": layer.takes, "facts": plain, "arrays": [*held]})
    np.savez(folder / asked["out"], **arrays)  # type: ignore[arg-type]
    return {"layers": told, "why": why}


def read_layers(answer: Mapping[str, Any], file: Path) -> list[Layer]:
    """What ``layers`` wrote."""
    with np.load(file, allow_pickle=False) as held:
        return [
            Layer(
                name=told["name"],
                kind=told["kind"],
                values=held[f"{i}"],
                takes=tuple(told["takes"]),
                facts={
                    **{key: tuple(value) if isinstance(value, list) else value for key, value in told["facts"].items()},
                    **{key: held[f"{i} {key}"] for key in told["arrays"]},
                },
            )
            for i, told in enumerate(answer["layers"])
        ]


MEASURES: dict[str, Callable[[ModelRef, Any, Path, Mapping[str, Any], Progress], Answer]] = {
    "logits": logits, "gradients": gradients, "attack": attacked, "kinks": kinks, "layers": layers,
}  # fmt: skip


def _read(folder: Path, name: str) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    return found


def _made(folder: Path, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.lib.format.open_memmap(folder / name, "w+", np.float32, shape)


def _parts(n: int, what: str, progress: Progress) -> Iterator[slice]:
    for start in range(0, n, BATCH):
        yield slice(start, min(start + BATCH, n))
        progress(min(start + BATCH, n), n, what)
