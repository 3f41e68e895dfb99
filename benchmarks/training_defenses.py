"""What each training defense costs, as a ratio to plain training, on the CNN of the Keras study.

    python benchmarks/training_defenses.py [torch|keras-tensorflow|keras-torch] [SIDE CHANNELS]

Processor seconds for each image and epoch, batches of 64; imports and the first epoch are not counted. Noise stands in
for images: what a step costs doesn't depend on what they show. Distillation is two trainings, and fine-tuning is one
more epoch on some images: their ratios are of whole trainings.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.models.defenses.catalogue import training_changes
from sparring.models.networks import build as networks
from sparring.models.spec import DefenseSpec, TrainSpec
from sparring.models.training.train import trained

IMAGES = 512
CASES: dict[str, list[DefenseSpec]] = {
    "plain": [],
    "rotate-shift-zoom": [DefenseSpec(defense="augmentation")],
    "adversarial-training (fgsm, art, half)": [DefenseSpec(defense="adversarial-training", eps=0.1)],
    "adversarial-training (fgsm, torchattacks, half)": [
        DefenseSpec(defense="adversarial-training", library="torchattacks", eps=0.1)
    ],
    "madry (7 steps)": [DefenseSpec(defense="madry")],
    "noisy-gradients": [DefenseSpec(defense="noisy-gradients")],
    "noisy-weights": [DefenseSpec(defense="noisy-weights")],
    "distillation": [DefenseSpec(defense="distillation")],
}


def seconds(framework: str, defenses: list[DefenseSpec], shape: tuple[int, int, int], epochs: int) -> float:
    rng = np.random.default_rng(0)
    x, y = rng.random((IMAGES, *shape), np.float32), rng.integers(0, 10, IMAGES)
    options = {"layout": "channels-first" if framework == "torch" else "channels-last"}
    ends: list[float] = []
    trained(
        lambda: networks.build("cnn_unpooled", framework, shape, 10),
        framework,
        x,
        y,
        TrainSpec(epochs=epochs, batch_size=64),
        defenses=training_changes(defenses),
        before=preprocessing(shape, **options),
        options=options,
        device="cpu",  # type: ignore[arg-type]
        progress=lambda *_: ends.append(time.process_time()),
    )
    per_epoch = IMAGES // 64
    counted = ends[-(epochs - 1) * per_epoch - 1 :]
    return (counted[-1] - counted[0]) / (len(counted) - 1) / 64


def main() -> None:
    framework = sys.argv[1] if len(sys.argv) > 1 else "torch"
    side, channels = (int(text) for text in sys.argv[2:4]) if len(sys.argv) > 3 else (28, 1)
    if framework != "torch":
        networks.use_keras(framework)
    plain = 0.0
    for name, defenses in CASES.items():
        each = seconds(framework, defenses, (channels, side, side), epochs=2)
        each *= 2 if name == "distillation" else 1
        plain = plain or each
        print(
            f"{framework} {side}x{side}x{channels} {name}: {each * 1e3:.2f} ms an image, {each / plain:.1f} x",
            flush=True,
        )


if __name__ == "__main__":
    main()
