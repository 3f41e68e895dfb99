"""Two models on the same images, each in the process that its runtime needs: a certificate that they are one function,
or what differs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from sparring.adapters.errors import InputError
from sparring.adapters.process import ProcessDied, ProcessFailed
from sparring.models.data import datasets
from sparring.models.data.datasets import Dataset
from sparring.models.layers.layer import Layer
from sparring.models.model_spec import OwnInput
from sparring.models.prepared.kinds.kind import options_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import DataSpec
from sparring.suites.certify import certificate
from sparring.suites.certify import layers as certificate_layers
from sparring.suites.certify.certificate import Certificate, Difference, GradientsCompared
from sparring.suites.certify.measures import read_layers
from sparring.suites.certify.reference import Reference, images, open_reference, resolve_all, takes
from sparring.suites.plan.plan import releases
from sparring.suites.workers.executor import Executor, Job, backend
from sparring.suites.workers.local import LocalExecutor
from sparring.suites.workers.reporter import Reporter

SAMPLES, ATTACKED = 1000, 200
STEPS = 10
"""Of PGD: each a quarter of the budget, from the image itself."""

MOST_KINKS = 50
"""Of more images than these whose gradients part it isn't asked whether they lie at kinks."""
LOOKED_AT, LOOKED_AT_LARGE = 7, 3
"""Images whose layers are compared, and of large ones: every output of every layer is kept. An odd number, lest it be
taken for another axis."""


def certify(
    a: str, b: str, *, suite: str | None = None, data: str | None = None, samples: int = SAMPLES,
    attack_samples: int = ATTACKED, eps: float | None = None, device: str = "auto", reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> Certificate:  # fmt: skip
    """Compare two models (each a text as for ``reference.resolve``) on so many images of the data's own split.

    ``attack_samples`` of them are attacked, by FGSM and PGD in the L∞ ball of ``eps`` (when None: 0.1 for one channel,
    else 8/255). ``executor`` is left open; where there is none, one is made and closed. Raises ``InputError`` for
    models or data that can't be used, and for models of other images or classes.
    """
    report = reporter or Reporter()
    references = resolve_all([a, b], suite=suite, data=data)
    _check_images(references)
    sample = images(references[0].data, samples)
    notes: list[str] = []
    own = executor is None
    executor = executor or LocalExecutor(device)
    folder = Path(tempfile.mkdtemp(prefix="sparring-certify-"))
    try:
        refs = _opened([_with_data(reference, sample) for reference in references], executor, device, report, notes)
        _check_classes(references, refs)
        report.stage("loading the images")
        pictures = datasets.load(sample, base=Path.cwd())
        if len(pictures.x) < samples:
            notes.append(f"{pictures.name} has {len(pictures.x)} images in its {sample.split} part: all are taken")
        sides = [
            _Side(key, reference.text, ref, executor, device, report, folder)
            for key, reference, ref in zip("ab", references, refs, strict=True)
        ]
        attack_samples = min(attack_samples, len(pictures.x))
        if eps is None:
            eps = 0.1 if pictures.x.shape[1] == 1 else 8 / 255
        return _measured(sides[0], sides[1], pictures, sample, attack_samples, eps, notes, report)
    finally:
        if own:
            executor.close()
        shutil.rmtree(folder, ignore_errors=True)


# --- opening --------------------------------------------------------------------------------------------------------


def _with_data(reference: Reference, data: DataSpec) -> Reference:
    sources = tuple(_with_data(source, data) for source in reference.sources)
    return replace(reference, data=data, sources=sources)


def _opened(
    references: list[Reference], executor: Executor, device: str, report: Reporter, notes: list[str]
) -> list[ModelRef]:
    """Both models. One that gives probabilities where the other gives logits is a finding, not bad input: its output is
    then compared as it is. Where both give probabilities, or one is said to, their logarithms are compared."""

    def opened(reference: Reference) -> ModelRef:
        return open_reference(reference, executor=executor, device=device, report=report, probabilities=True)

    refs = [opened(reference) for reference in references]
    silent = ["logits" in ref.lacks and not ref.members for ref in refs]
    said = all(silent) or any(options_of(reference.spec)["output"] == "probabilities" for reference in references)
    for index, reference in enumerate(references):
        if silent[index] and said and options_of(reference.spec)["output"] == "logits":
            if not isinstance(reference.spec, OwnInput):
                names = " and ".join(map(repr, reference.spec.sources))
                raise InputError(f"{reference.text}: output: `{reference.spec.kind}` takes it from {names}")
            spec = reference.spec.model_copy(update={"output": "probabilities"})
            refs[index] = opened(replace(reference, spec=spec))
        elif silent[index]:
            notes.append(
                f"{reference.text} gives probabilities (every row sums to 1) where logits are due: they are compared "
                "as they are"
            )
    return refs


def _check_images(references: list[Reference]) -> None:
    """Of two files that say what they take, before anything is opened."""
    shapes = [takes(reference.text, reference.spec)[0] for reference in references]
    if None not in shapes and shapes[0] != shapes[1]:
        (one, other), said = references, [" x ".join(map(str, shape or ())) for shape in shapes]
        raise InputError(f"{one.text} takes images of {said[0]}, {other.text} of {said[1]}: they can't be compared")


def _check_classes(references: list[Reference], refs: list[ModelRef]) -> None:
    (one, other), (a, b) = references, refs
    if a.classes != b.classes:
        raise InputError(f"{one.text} has {a.classes} classes, {other.text} {b.classes}: they can't be compared")


@dataclass
class _Side:
    """One of the two models, asked through its process; what it measures lies in ``folder``."""

    key: str
    text: str
    ref: ModelRef
    executor: Executor
    device: str
    report: Reporter
    folder: Path
    differentiable: bool = False

    def ask(self, what: str, out: str, **asked: Any) -> dict[str, Any]:
        """The answer of a measure of ``certify_worker``, whose arrays are then in the file ``out``."""
        request = {
            "do": "measure", "what": what, "model": self.ref.to_json(), "device": self.device,
            "folder": str(self.folder), "asked": {**asked, "out": out},
        }  # fmt: skip
        title = f"{self.text}: {what}"
        job = Job(backend(self.ref.host), request)
        try:
            return self.executor.run(job, partial(self.report.progress, title))
        except (ProcessFailed, ProcessDied) as error:
            raise InputError(f"{self.text}: {what}: {error}") from None

    def array(self, file: str) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = np.load(self.folder / file, mmap_mode="r", allow_pickle=False)
        return found

    def described(self) -> dict[str, Any]:
        ref = self.ref
        return {
            "model": self.text,
            "framework": ref.framework,
            "architecture": ref.architecture,
            "digest": ref.digest,
            "gradients": self.differentiable,
            "why_no_gradients": ref.lacks.get("gradients", ""),
            "versions": releases(ref),
        }


# --- measuring ------------------------------------------------------------------------------------------------------


def _measured(
    a: _Side, b: _Side, data: Dataset, sample: DataSpec, attacked: int, eps: float, notes: list[str], report: Reporter
) -> Certificate:
    folder, y = a.folder, data.y
    np.save(folder / "images.npy", data.x)
    np.save(folder / "labels.npy", y)
    log = any(side.ref.options.get("output") == "probabilities" for side in (a, b))
    finish: Callable[[Any], Any] = certificate.log_probabilities if log else lambda logits: logits

    report.stage(f"{len(y)} images through {a.text}")
    logits_a = finish(_logits(a, "images.npy"))
    np.save(folder / "cotangents.npy", certificate.cotangents(logits_a, y))
    gradients_a = _gradients(a)
    made = _adversarial(a, attacked, eps, report)

    report.stage(f"{len(y)} images through {b.text}")
    logits_b = finish(_logits(b, "images.npy"))
    gradients_b = _gradients(b) if gradients_a is not None else None
    made += _adversarial(b, attacked, eps, report)
    # one after the other: in a process that has both, each change of model opens it again
    seen = {side.key: [finish(_logits(side, file)) for *_, file in made] for side in (b, a)}
    judged = [
        certificate.judge(attack, side.key, y[:attacked], *pair)
        for (attack, side, _), pair in zip(made, zip(seen["a"], seen["b"], strict=True), strict=True)
    ]

    logits = certificate.compare_logits(logits_a, logits_b)
    gradients = None
    if gradients_a is not None and gradients_b is not None:
        gradients = certificate.compare_gradients(gradients_a, gradients_b)
        gradients = replace(gradients, kinks=_kinks(a, gradients, logits_a, logits_b))
    reasons = certificate.reasons(logits, gradients)
    first = None
    if reasons and not certificate.reasons(logits, None):
        first = Difference(None, None, None, "every layer gives the same numbers: only the gradients differ")
    elif reasons:
        first = _first_difference(a, b, data, logits_a, logits_b, finish, report)
    for side in (a, b):
        if not side.differentiable:
            notes.append(f"{side.text} has no gradients: {side.ref.lacks.get('gradients') or 'its runtime gives none'}")
    return Certificate(
        a=a.described(),
        b=b.described(),
        data={
            "name": data.name, "split": sample.split, "seed": sample.seed, "digest": data.digest,
            "attacked": attacked, "eps": eps,
        },
        n=len(y),
        compared="log-probabilities" if log else "logits",
        logits=logits,
        gradients=gradients,
        judged=tuple(judged),
        first_difference=first,
        reasons=reasons,
        notes=tuple(notes),
    )  # fmt: skip


def _logits(side: _Side, images: str) -> npt.NDArray[np.float32]:
    file = f"logits-{side.key}-{images}"
    side.differentiable = side.ask("logits", file, images=images)["differentiable"]
    return np.array(side.array(file))


def _gradients(side: _Side) -> npt.NDArray[np.float32] | None:
    """Of the loss with respect to the images, with the same cotangents for both: it is the models that are compared."""
    if not side.differentiable:
        return None
    file = f"gradients-{side.key}.npy"
    side.ask("gradients", file, images="images.npy", cotangents="cotangents.npy")
    return side.array(file)


def _kinks(
    a: _Side, gradients: GradientsCompared, logits_a: npt.NDArray[np.float32], logits_b: npt.NDArray[np.float32]
) -> tuple[int, ...]:
    """Of the images whose gradients part, those on which the first model's own gradient does within rounding."""
    chosen = gradients.turned
    if not chosen or len(chosen) > MOST_KINKS:
        return ()
    allowed = np.abs(logits_a - logits_b).max(axis=1)[list(chosen)]
    a.ask(
        "kinks", "kinks.npy", images="images.npy", cotangents="cotangents.npy", chosen=list(chosen),
        allowed=[float(value) for value in allowed],
    )  # fmt: skip
    least = a.array("kinks.npy")
    return certificate.at_kinks(chosen, gradients.cosines, least)


def _adversarial(side: _Side, count: int, eps: float, report: Reporter) -> list[tuple[str, _Side, str]]:
    """The attacks made on a model, with the files of their images; none where it has no gradients."""
    if not side.differentiable or not count:
        return []
    attacks: dict[str, dict[str, Any]] = {
        "fgsm": {"eps": eps},
        "pgd": {"eps": eps, "eps_step": eps / 4, "steps": STEPS, "random_start": False},
    }
    found = []
    for name, params in attacks.items():
        report.stage(f"{name} on {side.text}, {count} images")
        file = f"{name}-{side.key}.npy"
        side.ask("attack", file, images="images.npy", labels="labels.npy", count=count, attack=name, params=params)
        found.append((name, side, file))
    return found


def _first_difference(
    a: _Side, b: _Side, data: Dataset, logits_a: npt.NDArray[np.float32], logits_b: npt.NDArray[np.float32],
    finish: Callable[[Any], Any], report: Reporter,
) -> Difference:  # fmt: skip
    """Of the layers, on the images on which the two models' outputs differ most."""
    report.stage("looking for the first layer that differs")
    count = LOOKED_AT if data.x[0].size <= 64 * 64 * 3 else LOOKED_AT_LARGE
    x = data.x[list(certificate.differing_most(logits_a, logits_b, count))]
    np.save(a.folder / "looked-at.npy", x)
    layers, said = [], []
    for side in (a, b):
        file = f"layers-{side.key}.npz"
        answer = side.ask("layers", file, images="looked-at.npy")
        *within, output = read_layers(answer, a.folder / file)
        if finish is certificate.log_probabilities:  # whether or not the network takes the softmax itself
            within.append(Layer("probabilities", "softmax", softmax(output.values, axis=1), (len(within) - 1,)))
        layers.append([*within, replace(output, values=finish(output.values), takes=(len(within) - 1,))])
        said += [f"the layers of {side.text} can't be looked at: {answer['why']}"] if answer["why"] else []
    found = certificate_layers.first_difference(*layers)
    for side, mine, others in ((b, layers[1], layers[0]), (a, layers[0], layers[1])):
        given = next((layer.values for layer in others if layer.kind == "preprocessing"), None)
        said += _another_input(side, x, given, mine[-1].values, others[-1].values, finish)
    return replace(found, why="; ".join([found.why, *said]))


def _another_input(
    side: _Side, x: npt.NDArray[np.float32], given: npt.NDArray[np.float32] | None, own: npt.NDArray[np.float32],
    wanted: npt.NDArray[np.float32], finish: Callable[[Any], Any],
) -> list[str]:  # fmt: skip
    """Of what the model would have to be given to compute what the other does, if that is one of the usual mistakes."""
    for name, tried in certificate.inputs_tried(x, given).items():
        np.save(side.folder / "tried.npy", tried)
        seen = finish(_logits(side, "tried.npy"))
        size = float(np.abs(wanted).max(initial=0))
        if np.abs(seen - wanted).max() <= certificate.TOLERANCE * max(size, 1.0) < np.abs(own - wanted).max():
            who, other = side.key.upper(), "BA"["AB".index(side.key.upper())]
            return [f"given the images with {name}, {who} computes what {other} does of the images as they are"]
    return []
