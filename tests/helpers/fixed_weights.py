"""Made suites/studies/versions-cnn.{safetensors,npz}: python tests/helpers/fixed_weights.py

The network `cnn`, trained on digits, in half precision, for torch and for Keras. A network trained anew in each
environment would differ between releases of its framework before any attack began: the studies `versions-*` take these.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sparring.adapters.frameworks.preprocessing import preprocessing
from sparring.models.architectures.torch_networks import cnn
from sparring.models.data import datasets
from sparring.models.networks import weights
from sparring.models.spec import DataSpec, TrainSpec
from sparring.models.training.train import trained

HOME = Path(__file__).parents[2] / "suites" / "studies"


def for_keras(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as Keras orders and names them: kernels (H, W, in, out), and flattened channels last."""
    found = {}
    for key, value in arrays.items():
        layer, _, kind = key.partition(".")
        if kind == "bias":
            found[f"{layer}/bias"] = value
        elif value.ndim == 4:
            found[f"{layer}/kernel"] = value.transpose(2, 3, 1, 0)
        elif layer == "dense1":
            found[f"{layer}/kernel"] = value.reshape(128, 64, 2, 2).transpose(2, 3, 1, 0).reshape(256, 128)
        else:
            found[f"{layer}/kernel"] = value.T
    return found


def main() -> None:
    data = datasets.load_train(DataSpec(name="digits"), base=Path("."), samples=None, seed=0)
    spec = TrainSpec(epochs=10, seed=0)
    network, _ = trained(
        lambda: cnn((1, 8, 8), 10),
        "torch",
        data.x,
        data.y,
        spec,
        before=preprocessing((1, 8, 8)),
        options={},
        device="cpu",
    )
    arrays = {key: value.astype(np.float16) for key, value in weights.torch_arrays(network).items()}
    save_file(arrays, HOME / "versions-cnn.safetensors")
    (HOME / "versions-cnn.safetensors").chmod(0o644)
    np.savez_compressed(HOME / "versions-cnn.npz", **for_keras(arrays))


if __name__ == "__main__":
    main()
