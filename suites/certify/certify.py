"""Certify that two models are one function: both get the same images, each in the process that its runtime needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from sparring.adapters.errors import InputError
from sparring.models.data import datasets
from sparring.models.data.datasets import Dataset
from sparring.models.layers.layer import Layer
from sparring.models.model_spec import OwnInput
from sparring.models.prepared.kinds.kind import options_of
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.spec import DataSpec
from sparring.suites.certify import comparison
from sparring.suites.certify.certificate import TOLERANCE, Certificate, Difference, GradientsCompared
from sparring.suites.certify.first_difference import first_difference
from sparring.suites.certify.reference import Reference, images, open_reference, resolve_all, takes
from sparring.suites.certify.side import COTANGENTS, IMAGES, LABELS, Side
from sparring.suites.workers.executor import Executor
from sparring.suites.workers.local import LocalExecutor
from sparring.suites.workers.reporter import Reporter

Floats = npt.NDArray[np.float32]
Finish = Callable[[Floats], Floats]
"""What is compared, from the logits: these themselves, or their log-probabilities."""

SAMPLES, ATTACKED = 1000, 200
MOST_KINKS = 50
"""Kinks are looked for where the gradients of no more images than these part."""
LAYER_IMAGES, LARGE_LAYER_IMAGES = 7, 3
"""Images whose layers are compared, and of large ones: every output of every layer is kept. An odd number, lest it be
taken for another axis."""


def certify(
    a: str,
    b: str,
    *,
    suite: str | None = None,
    data: str | None = None,
    samples: int = SAMPLES,
    attack_samples: int = ATTACKED,
    eps: float | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> Certificate:
    """Compare two models (each a text as for ``reference.resolve``) on so many images of the data's own split.

    FGSM and PGD attack ``attack_samples`` of them in the L∞ ball of ``eps`` (None: 0.1 for one channel, else 8/255).
    ``executor`` is left open; where there is none, one is made and closed. Raises ``InputError`` for models or data
    that can't be used, and for models that differ in the shape of their images or in their classes.
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
        refs = _open_both([_with_data(reference, sample) for reference in references], executor, device, report, notes)
        _check_classes(references, refs)
        report.stage("loading the images")
        loaded = datasets.load(sample, base=Path.cwd())
        if len(loaded.x) < samples:
            notes.append(f"{loaded.name} has {len(loaded.x)} images in its {sample.split} part: all are taken")
        sides = [
            Side(key, reference.text, ref, executor, device, report, folder)
            for key, reference, ref in zip("ab", references, refs, strict=True)
        ]
        attack_samples = min(attack_samples, len(loaded.x))
        if eps is None:
            eps = 0.1 if loaded.x.shape[1] == 1 else 8 / 255
        return _measure(sides[0], sides[1], loaded, sample, attack_samples, eps, notes, report)
    finally:
        if own:
            executor.close()
        shutil.rmtree(folder, ignore_errors=True)


# --- opening


def _with_data(reference: Reference, data: DataSpec) -> Reference:
    sources = tuple(_with_data(source, data) for source in reference.sources)
    return replace(reference, data=data, sources=sources)


def _open_both(
    references: list[Reference], executor: Executor, device: str, report: Reporter, notes: list[str]
) -> list[ModelRef]:
    """Open both models.

    One that gives probabilities where the other gives logits is a finding, not bad input: its output is compared as it
    is. Where both give probabilities, or the spec of one says so, their logarithms are compared.
    """

    def opened(reference: Reference) -> ModelRef:
        return open_reference(reference, executor=executor, device=device, report=report, probabilities=True)

    refs = [opened(reference) for reference in references]
    undeclared = ["logits" in ref.lacks and not ref.members for ref in refs]
    expected = all(undeclared) or any(options_of(ref.spec)["output"] == "probabilities" for ref in references)
    for index, reference in enumerate(references):
        if undeclared[index] and expected and options_of(reference.spec)["output"] == "logits":
            if not isinstance(reference.spec, OwnInput):
                names = " and ".join(map(repr, reference.spec.sources))
                raise InputError(f"{reference.text}: output: `{reference.spec.kind}` takes it from {names}")
            spec = reference.spec.model_copy(update={"output": "probabilities"})
            refs[index] = opened(replace(reference, spec=spec))
        elif undeclared[index]:
            notes.append(
                f"{reference.text} gives probabilities (every row sums to 1) where logits are due: they are compared "
                "as they are"
            )
    return refs


def _check_images(references: list[Reference]) -> None:
    """Refuse two files that declare images of different shapes, before anything is opened."""
    shapes = [takes(reference.text, reference.spec)[0] for reference in references]
    if None not in shapes and shapes[0] != shapes[1]:
        (one, other), (a, b) = references, (" x ".join(map(str, shape or ())) for shape in shapes)
        raise InputError(f"{one.text} takes images of {a}, {other.text} of {b}: they can't be compared")


def _check_classes(references: list[Reference], refs: list[ModelRef]) -> None:
    (one, other), (a, b) = references, refs
    if a.classes != b.classes:
        raise InputError(f"{one.text} has {a.classes} classes, {other.text} {b.classes}: they can't be compared")


# --- measuring


def _measure(
    a: Side, b: Side, data: Dataset, sample: DataSpec, attacked: int, eps: float, notes: list[str], report: Reporter
) -> Certificate:
    folder, y = a.folder, data.y
    np.save(folder / IMAGES, data.x)
    np.save(folder / LABELS, y)
    log = any(side.ref.options.get("output") == "probabilities" for side in (a, b))
    finish: Finish = comparison.log_probabilities if log else lambda logits: logits

    report.stage(f"{len(y)} images through {a.text}")
    logits_a = finish(a.logits())
    np.save(folder / COTANGENTS, comparison.cotangents(logits_a, y))
    gradients_a = a.gradients()
    attacks = [(attack, "a", file) for attack, file in a.adversarial(attacked, eps)]

    report.stage(f"{len(y)} images through {b.text}")
    logits_b = finish(b.logits())
    gradients_b = b.gradients() if gradients_a is not None else None
    attacks += [(attack, "b", file) for attack, file in b.adversarial(attacked, eps)]
    # one after the other: in a process that has both, each change of model opens it again
    of_b = [finish(b.logits(file)) for *_, file in attacks]
    of_a = [finish(a.logits(file)) for *_, file in attacks]
    judged = [
        comparison.judge(attack, made_on, y[:attacked], *pair)
        for (attack, made_on, _), pair in zip(attacks, zip(of_a, of_b, strict=True), strict=True)
    ]

    logits = comparison.compare_logits(logits_a, logits_b)
    gradients = None
    if gradients_a is not None and gradients_b is not None:
        gradients = comparison.compare_gradients(gradients_a, gradients_b)
        gradients = replace(gradients, kinks=_kinks(a, gradients, logits_a, logits_b))
    reasons = comparison.reasons(logits, gradients)
    difference = None
    if reasons and not comparison.reasons(logits, None):
        difference = Difference(None, None, None, "every layer gives the same numbers: only the gradients differ")
    elif reasons:
        difference = _first_difference(a, b, data, logits_a, logits_b, finish, report)
    for side in (a, b):
        if not side.differentiable:
            notes.append(f"{side.text} has no gradients: {side.ref.lacks.get('gradients') or 'its runtime gives none'}")
    return Certificate(
        a=a.described(),
        b=b.described(),
        data={
            "name": data.name,
            "split": sample.split,
            "seed": sample.seed,
            "digest": data.digest,
            "attacked": attacked,
            "eps": eps,
        },
        n=len(y),
        compared="log-probabilities" if log else "logits",
        logits=logits,
        gradients=gradients,
        judged=tuple(judged),
        first_difference=difference,
        reasons=reasons,
        notes=tuple(notes),
    )


def _kinks(a: Side, gradients: GradientsCompared, logits_a: Floats, logits_b: Floats) -> tuple[int, ...]:
    """Those of the images whose gradients part on which the first model's own gradient turns within rounding."""
    chosen = gradients.turned
    if not chosen or len(chosen) > MOST_KINKS:
        return ()
    allowed = np.abs(logits_a - logits_b).max(axis=1)[list(chosen)]
    return comparison.at_kinks(chosen, gradients.cosines, a.kinks(chosen, allowed))


def _first_difference(
    a: Side, b: Side, data: Dataset, logits_a: Floats, logits_b: Floats, finish: Finish, report: Reporter
) -> Difference:
    """The first layer that differs, on the images on which the two models' outputs differ most."""
    report.stage("looking for the first layer that differs")
    count = LAYER_IMAGES if data.x[0].size <= 64 * 64 * 3 else LARGE_LAYER_IMAGES
    x = data.x[list(comparison.differing_most(logits_a, logits_b, count))]
    file = "most-different.npy"
    np.save(a.folder / file, x)
    layers, remarks = [], []
    for side in (a, b):
        (*inner, output), why = side.layers(file)
        if finish is comparison.log_probabilities:  # whether or not the network takes the softmax itself
            inner.append(Layer("probabilities", "softmax", softmax(output.values, axis=1), (len(inner) - 1,)))
        layers.append([*inner, replace(output, values=finish(output.values), takes=(len(inner) - 1,))])
        remarks += [f"the layers of {side.text} can't be looked at: {why}"] if why else []
    difference = first_difference(*layers)
    for side, own, other in ((b, layers[1], layers[0]), (a, layers[0], layers[1])):
        inputs = next((layer.values for layer in other if layer.kind == "preprocessing"), None)
        remarks += _wrong_input(side, x, inputs, own[-1].values, other[-1].values, finish)
    return replace(difference, why="; ".join([difference.why, *remarks]))


def _wrong_input(
    side: Side, x: Floats, inputs: Floats | None, own: Floats, wanted: Floats, finish: Finish
) -> list[str]:
    """One of the usual mistakes in the input, if with it the model computes what the other does (``wanted``)."""
    for name, variant in comparison.wrong_inputs(x, inputs).items():
        np.save(side.folder / "variant.npy", variant)
        outputs = finish(side.logits("variant.npy"))
        size = float(np.abs(wanted).max(initial=0))
        if np.abs(outputs - wanted).max() <= TOLERANCE * max(size, 1.0) < np.abs(own - wanted).max():
            who, other = side.key.upper(), "BA"["AB".index(side.key.upper())]
            return [f"given the images with {name}, {who} computes what {other} does of the images as they are"]
    return []
