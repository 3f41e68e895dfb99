"""One of the two models of a certificate, measured through its worker process; the arrays pass through a folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError
from sparring.adapters.process import ProcessDied, ProcessFailed
from sparring.models.layers.layer import Layer
from sparring.models.prepared.model_ref import ModelRef
from sparring.suites.certify.measures import read_layers
from sparring.suites.plan.plan import releases
from sparring.suites.workers.executor import Executor, Job, backend
from sparring.suites.workers.reporter import Reporter

Floats = npt.NDArray[np.float32]

IMAGES, LABELS, COTANGENTS = "images.npy", "labels.npy", "cotangents.npy"
"""Files in the folder that both sides read."""
STEPS = 10
"""Of PGD: each a quarter of the budget, from the image itself."""


@dataclass
class Side:
    """One of the two models; ``key`` is ``a`` or ``b``. Every method raises ``InputError`` where the model fails."""

    key: str
    text: str
    ref: ModelRef
    executor: Executor
    device: str
    report: Reporter
    folder: Path
    differentiable: bool = False

    def logits(self, images: str = IMAGES) -> Floats:
        """The logits, (N, classes), of the images in a file; also finds out whether the model has gradients."""
        file = f"logits-{self.key}-{images}"
        self.differentiable = self._ask("logits", file, images=images)["differentiable"]
        return np.array(self._array(file))

    def gradients(self) -> Floats | None:
        """The loss's gradients, (N, C, H, W), from the same cotangents for both models; None without gradients."""
        if not self.differentiable:
            return None
        file = f"gradients-{self.key}.npy"
        self._ask("gradients", file, images=IMAGES, cotangents=COTANGENTS)
        return self._array(file)

    def kinks(self, chosen: tuple[int, ...], allowed: Floats) -> Floats:
        """The least cosine of each chosen image's gradient with its own after a tiny move of the pixels, (chosen,).

        Moves count that change no logit by more than ``allowed``, (chosen,).
        """
        limits = [float(value) for value in allowed]
        self._ask("kinks", "kinks.npy", images=IMAGES, cotangents=COTANGENTS, chosen=list(chosen), allowed=limits)
        return self._array("kinks.npy")

    def adversarial(self, count: int, eps: float) -> list[tuple[str, str]]:
        """Attack the first ``count`` images: (attack, file of its images); none where the model has no gradients."""
        if not self.differentiable or not count:
            return []
        attacks: dict[str, dict[str, Any]] = {
            "fgsm": {"eps": eps},
            "pgd": {"eps": eps, "eps_step": eps / 4, "steps": STEPS, "random_start": False},
        }
        files = []
        for name, params in attacks.items():
            self.report.stage(f"{name} on {self.text}, {count} images")
            file = f"{name}-{self.key}.npy"
            self._ask("attack", file, images=IMAGES, labels=LABELS, count=count, attack=name, params=params)
            files.append((name, file))
        return files

    def layers(self, images: str) -> tuple[list[Layer], str]:
        """The layers on the images in a file, the output last; and why the inner ones can't be seen, or ""."""
        file = f"layers-{self.key}.npz"
        answer = self._ask("layers", file, images=images)
        return read_layers(answer, self.folder / file), answer["why"]

    def described(self) -> dict[str, Any]:
        """The model's entry in the certificate's JSON."""
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

    def _ask(self, measure: str, out: str, **arguments: Any) -> dict[str, Any]:
        """The answer of one of ``MEASURES``, whose arrays are then in the file ``out``."""
        request = {
            "do": "measure",
            "what": measure,
            "model": self.ref.to_json(),
            "device": self.device,
            "folder": str(self.folder),
            "asked": {**arguments, "out": out},
        }
        title = f"{self.text}: {measure}"
        try:
            return self.executor.run(Job(backend(self.ref.host), request), partial(self.report.progress, title))
        except (ProcessFailed, ProcessDied) as error:
            raise InputError(f"{self.text}: {measure}: {error}") from None

    def _array(self, file: str) -> Floats:
        array: Floats = np.load(self.folder / file, mmap_mode="r", allow_pickle=False)
        return array
