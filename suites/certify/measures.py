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
from sparring.suites.certify.comparison import compare_gradients

BATCH = 50
LIBRARY = "foolbox"
"""The library whose FGSM and PGD make the adversarial images, over the protocol on every runtime."""
NUDGES = [2.0**-24 * 2**k for k in range(7) for _ in range(6)]
"""How far pixels are moved to see whether an image lies at a kink: from the rounding of a pixel up to 4e-6."""

Progress = Callable[[int, int, str], None]
Request = Mapping[str, Any]
"""The names of the files to read and, as ``out``, of the file to write; and the measure's own arguments."""
Answer = dict[str, Any]


def logits(_: ModelRef, classifier: Classifier, folder: Path, request: Request, progress: Progress) -> Answer:
    """Write the logits of ``images``, float32 (N, classes); answer whether the model has gradients."""
    x = _read(folder, request["images"])
    out = _create(folder, request["out"], (len(x), classifier.classes))
    for part in _parts(len(x), "logits", progress):
        out[part] = classifier.logits(np.array(x[part]))
    return {"differentiable": isinstance(classifier, Differentiable)}


def gradients(_: ModelRef, classifier: Any, folder: Path, request: Request, progress: Progress) -> Answer:
    """Write the vjps of ``cotangents`` at the images, float32 (N, C, H, W)."""
    x, cotangents = _read(folder, request["images"]), _read(folder, request["cotangents"])
    out = _create(folder, request["out"], x.shape)
    for part in _parts(len(x), "gradients", progress):
        out[part] = classifier.vjp(np.array(x[part]), np.array(cotangents[part]))
    return {}


def adversarial(_: ModelRef, classifier: Classifier, folder: Path, request: Request, progress: Progress) -> Answer:
    """Write the adversarial images of ``attack`` with ``params``, made of the first ``count``: float32 (N, C, H, W)."""
    x, y = (np.array(_read(folder, request[key])[: request["count"]]) for key in ("images", "labels"))
    result = attack(
        classifier,
        x,
        y,
        request["attack"],
        library=LIBRARY,
        norm="linf",
        route="bridged",
        batch_size=BATCH,
        progress=lambda done, total: progress(done, total, request["attack"]),
        params=request["params"],
    )
    _create(folder, request["out"], x.shape)[:] = result.images
    return {}


def kinks(_: ModelRef, classifier: Any, folder: Path, request: Request, progress: Progress) -> Answer:
    """Write the least cosine between each chosen image's gradient and its gradient after a tiny move of the pixels.

    Float32 (N,). Moves count that change no logit by more than ``allowed``, one number an image.
    """
    chosen, allowed = list(request["chosen"]), np.asarray(request["allowed"])
    x, cotangents = (np.array(_read(folder, request[key])[chosen]) for key in ("images", "cotangents"))
    least = np.ones(len(x), np.float32)
    before = classifier.logits(x), classifier.vjp(x, cotangents)
    rng = np.random.default_rng(0)
    for count, size in enumerate(NUDGES, start=1):
        moved = x + np.float32(size) * rng.choice(np.array([-1, 1], np.float32), x.shape)
        small = np.abs(classifier.logits(moved) - before[0]).max(axis=1) <= allowed
        cosines = compare_gradients(before[1], classifier.vjp(moved, cotangents)).cosines
        least = np.where(small, np.minimum(least, cosines), least)
        progress(count, len(NUDGES), "nudges")
    _create(folder, request["out"], least.shape)[:] = least
    return {}


def layers(ref: ModelRef, classifier: Classifier, folder: Path, request: Request, progress: Progress) -> Answer:
    """Write the arrays of the network's layers on the images, into an .npz file; everything else is in the answer."""
    network = None if ref.members else open_network(ref)
    members = [member.name for member in ref.members]
    recorded, why = record(network, classifier, np.array(_read(folder, request["images"])), ref.options, members)
    arrays, entries = {}, []
    for i, layer in enumerate(recorded):
        weights = {key: value for key, value in layer.facts.items() if isinstance(value, np.ndarray)}
        arrays.update({f"{i}": layer.values, **{f"{i} {key}": value for key, value in weights.items()}})
        facts = {key: value for key, value in layer.facts.items() if key not in weights}
        entry = {"name": layer.name, "kind": layer.kind, "takes": layer.takes, "facts": facts, "arrays": [*weights]}
        entries.append(entry)
    np.savez(folder / request["out"], **arrays)  # type: ignore[arg-type]
    return {"layers": entries, "why": why}


def read_layers(answer: Answer, file: Path) -> list[Layer]:
    """Read what ``layers`` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return [
            Layer(
                name=entry["name"],
                kind=entry["kind"],
                values=arrays[f"{i}"],
                takes=tuple(entry["takes"]),
                facts={
                    **{
                        key: tuple(value) if isinstance(value, list) else value for key, value in entry["facts"].items()
                    },
                    **{key: arrays[f"{i} {key}"] for key in entry["arrays"]},
                },
            )
            for i, entry in enumerate(answer["layers"])
        ]


MEASURES: dict[str, Callable[[ModelRef, Any, Path, Request, Progress], Answer]] = {
    "logits": logits,
    "gradients": gradients,
    "attack": adversarial,
    "kinks": kinks,
    "layers": layers,
}


def _read(folder: Path, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    return array


def _create(folder: Path, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.lib.format.open_memmap(folder / name, "w+", np.float32, shape)


def _parts(n: int, what: str, progress: Progress) -> Iterator[slice]:
    for start in range(0, n, BATCH):
        yield slice(start, min(start + BATCH, n))
        progress(min(start + BATCH, n), n, what)
