"""What ``sparring explain`` attacks: a model and images of a suite, and the suite's own parameters of the attack."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sparring.adapters.attacks import catalogue as attacks
from sparring.adapters.errors import InputError, unknown
from sparring.adapters.protocol import Classifier, Images, Labels
from sparring.models.data import datasets
from sparring.models.model_spec import ModelSpec
from sparring.models.prepared.model_ref import ModelRef
from sparring.models.prepared.open import open_model
from sparring.models.prepared.prepare import prepare
from sparring.suites.plan.expand import single, with_transforms
from sparring.suites.plan.file import Suite, home, load_suite
from sparring.suites.workers.executor import backend
from sparring.suites.workers.reporter import Reporter

IMAGES = 8
LIGHT: dict[str, dict[str, Any]] = {"cw": {"steps": 100, "search_steps": 3}, "square": {"queries": 300}}
"""Searches that are long enough to be compared, where neither the suite nor the caller gives parameters."""
EPS = {"linf": 0.1, "l2": 1.0}


@dataclass(frozen=True)
class Subject:
    """A classifier, images (N, C, H, W) with their labels and numbers, and the attack's parameters.

    ``source`` says in words where the parameters come from.
    """

    classifier: Classifier
    model: str
    x: Images
    y: Labels
    images: tuple[int, ...]
    norm: str
    params: dict[str, Any]
    source: str


def subject(
    attack: str,
    suite: str,
    *,
    model: str | None = None,
    norm: str | None = None,
    params: Sequence[str] = (),
    images: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Subject:
    """Open a suite's model (``model``, or the first with gradients) and its data. Raises ``InputError``."""
    report = reporter or Reporter()
    report.stage(f"checking {suite}")
    base = home(suite)
    loaded = with_transforms(single(load_suite(suite, overrides=overrides)), base)
    canonical = attacks.find(attack, norm)
    resolved, source = parameters(canonical, loaded, _read(params))
    spec = _model(loaded, model, canonical.needs == "gradients")
    os.environ.setdefault("KERAS_BACKEND", backend(_root(loaded, spec).runtime))
    data = datasets.load(loaded.one_data, base=base)
    report.stage(f"opening {spec.name}")
    classifier = open_model(_prepared(loaded, spec, base, device, report), device=device)
    if tuple(classifier.input_shape) != data.x.shape[1:]:
        shape = tuple(classifier.input_shape)
        raise InputError(f"{spec.name} takes images of shape {shape}, {data.name} has {data.x.shape[1:]}")
    chosen = choose(images, classifier, data.x, data.y)
    x, y = data.x[list(chosen)], data.y[list(chosen)]
    return Subject(classifier, spec.name, x, y, chosen, canonical.norm, resolved, source)


def _read(params: Sequence[str]) -> dict[str, Any]:
    values = {}
    for param in params:
        key, equals, text = param.partition("=")
        if not key or not equals:
            raise InputError(f"--param {param!r}: write key=value, as in eps=8/255 or steps=10")
        values[key] = yaml.safe_load(text)
    return values


def parameters(canonical: attacks.Attack, suite: Suite, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The attack's parameters, and where they come from in words.

    ``overrides`` come first, then the suite's parameters of the attack, then the canonical defaults. Raises
    ``InputError`` for unknown parameters and values out of range.
    """
    for key in overrides:
        if key not in canonical.parameters:
            raise InputError(f"--param: {canonical.name}: {unknown('parameter', key, canonical.parameters)}")
    own: dict[str, Any] = {}
    source = f"the suite {suite.name} has no {canonical.name} ({canonical.norm}): canonical defaults"
    for spec in suite.attacks:
        if spec.requests()[0].canonical == canonical and not own:
            own, source = dict(spec.given), f"the parameters of the suite {suite.name}"
            own = {key: value[0] if isinstance(value, list) else value for key, value in own.items()}
    if not own:
        own = dict(LIGHT.get(canonical.name, {}))
        if "eps" in canonical.parameters:
            own["eps"] = EPS[canonical.norm]
    if overrides:
        source += ", with " + ", ".join(f"{key}={value}" for key, value in overrides.items())
    return canonical.resolve({**own, **overrides}), source


def _model(suite: Suite, name: str | None, gradients: bool) -> ModelSpec:
    if name is not None:
        by_name = {spec.name: spec for spec in suite.models}
        if name not in by_name:
            raise InputError(f"--model: {unknown('model', name, by_name)}")
        return by_name[name]
    # an ONNX file may have an operator without a gradient
    able = [spec for spec in suite.models if not gradients or spec.runtime != "onnx"] or list(suite.models)
    return next((spec for spec in able if spec.runtime == "torch"), able[0])


def _root(suite: Suite, spec: ModelSpec) -> ModelSpec:
    """The model of the suite from which ``spec`` is made in the end; of an ensemble the first one on Keras."""
    sources = [_root(suite, other) for other in suite.models if other.name in spec.sources]
    return next((one for one in sources if one.runtime.startswith("keras")), sources[0] if sources else spec)


def _prepared(suite: Suite, spec: ModelSpec, base: Path, device: str, report: Reporter) -> ModelRef:
    sources = [other for other in suite.models if other.name in spec.sources]
    others = {source.name: _prepared(suite, source, base, device, report) for source in sources}

    def progress(done: int, total: int, what: str) -> None:
        report.progress(spec.name, done, total, what)

    try:
        return prepare(spec, data=suite.one_data, base=base, others=others, device=device, progress=progress)
    except InputError as error:
        raise InputError(f"{suite.name}: {spec.name}: {error}") from None


def choose(images: str | None, classifier: Classifier, x: Images, y: Labels) -> tuple[int, ...]:
    """The numbers of the images to attack: those in ``images`` (``0,3,7``), or eight.

    Up to two of the eight are images that the model misclassifies, the others are the first it doesn't: only a
    misclassified image shows whether a library takes the true labels. Raises ``InputError`` for a bad number.
    """
    if images is not None:
        try:
            chosen = tuple(int(part) for part in images.split(","))
        except ValueError:
            raise InputError(f"--images {images!r}: write numbers with commas, as in 0,3,7") from None
        for number in chosen:
            if not 0 <= number < len(x):
                raise InputError(f"--images: there is no image {number}: the suite has {len(x)}, 0 to {len(x) - 1}")
        return chosen
    first = min(len(x), 256)
    wrong = np.flatnonzero(classifier.logits(x[:first]).argmax(axis=1) != y[:first])[:2]
    right = [number for number in range(first) if number not in wrong][: IMAGES - len(wrong)]
    return tuple(sorted([*right, *map(int, wrong)]))
