"""Files of weights, in and out, as named arrays. Nothing here unpickles: what would need it is refused.

The names are those of the framework: the keys of a torch state dict, the paths of Keras' variables (``conv1/kernel``).
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparring.adapters.errors import InputError, first_line
from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures import mobilenet
from sparring.models.storage import atomically

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

TORCH_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
KERAS_SUFFIXES = (".npz", ".weights.h5")
NESTED = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict inside a checkpoint."""


# --- torch ----------------------------------------------------------------------------------------------------------


def torch_arrays(module: Any) -> Arrays:
    """The state dict of a torch module as arrays."""
    state = {key: value for key, value in module.state_dict().items() if hasattr(value, "detach")}
    # NumPy has no bfloat16; every one is a float32
    widened = {k: v.float() if str(v.dtype) == "torch.bfloat16" else v for k, v in state.items()}
    return {key: value.detach().cpu().contiguous().numpy() for key, value in widened.items()}


def save_torch(module: Any, path: Path) -> None:
    """Write a torch module's weights as .safetensors."""
    from safetensors.numpy import save_file

    atomically(path, lambda temporary: save_file(torch_arrays(module), temporary))


def load_torch(module: Any, path: Path) -> None:
    """Read .safetensors or a torch state dict into the module, which must have exactly those keys and shapes.

    Raises ``InputError`` for another kind of file, a damaged one, one that would need unpickling, and for the first
    missing, unexpected and misshapen key.
    """
    state = _read_torch(path)
    check_fit(path, state, module.state_dict())
    module.load_state_dict(state, strict=False)


def put_torch(module: Any, arrays: Mapping[str, npt.NDArray[Any]], what: str) -> None:
    """Put arrays into a torch module. Raises ``InputError``, which says ``what`` they are, if they don't fit."""
    import torch

    check_fit(what, arrays, module.state_dict())
    module.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}, strict=False)


def _read_torch(path: Path) -> dict[str, Any]:
    guard()
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix not in TORCH_SUFFIXES:
        raise InputError(f"weights: {path} can't be loaded into a torch module; wanted {', '.join(TORCH_SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise InputError(
            f"weights: {path} would need unpickling, which runs code from the file: save a state dict instead, "
            "torch.save(model.state_dict(), path), or a .safetensors file"
        ) from exc
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise InputError(f"weights: {path} can't be read: {first_line(exc)}") from exc
    if isinstance(content, Mapping):
        content = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(f"weights: {path} holds no state dict (names and tensors) but a {type(content).__name__}")
    # DataParallel puts this in front of every key
    return {str(key).removeprefix("module."): value for key, value in content.items()}


# --- Keras ----------------------------------------------------------------------------------------------------------


def keras_arrays(model: Any) -> Arrays:
    """The weights of a Keras model, by the paths of its variables; a path that occurs again gets a number."""
    arrays: Arrays = {}
    for variable in model.weights:
        value = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
        arrays[_fresh(variable.path, arrays)] = value
    return arrays


def save_keras(model: Any, path: Path) -> None:
    """Write a Keras model's weights as .npz."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:  # given a path, savez would add a suffix to it
            np.savez(stream, **keras_arrays(model))  # type: ignore[arg-type]

    atomically(path, write)


def load_keras(model: Any, path: Path) -> None:
    """Read .npz or .weights.h5 into a Keras model; a folded MobileNet v2 goes into a keras.applications.MobileNetV2.

    Raises ``InputError`` as ``load_torch`` does.
    """
    if path.name.endswith(".weights.h5"):
        try:
            model.load_weights(path)
        except (OSError, ValueError, KeyError) as exc:
            raise InputError(f"weights: {path} does not fit the model or can't be read: {first_line(exc)}") from exc
        return
    arrays = read_npz(path)
    if mobilenet.is_folded(arrays):
        mobilenet.check(arrays, str(path))
        arrays = mobilenet.unfold(arrays)
    put_keras(model, arrays, str(path))


def put_keras(model: Any, arrays: Mapping[str, npt.NDArray[Any]], what: str) -> None:
    """Put arrays into a Keras model; raises as ``put_torch`` does."""
    wanted = keras_arrays(model)
    check_fit(what, arrays, wanted)
    model.set_weights([arrays[key] for key in wanted])


def read_npz(path: Path) -> Arrays:
    """The arrays of an .npz file. Raises ``InputError`` for another kind of file, and for a damaged or pickled one."""
    if path.suffix != ".npz":
        raise InputError(f"weights: {path} can't be loaded into a Keras model; wanted {', '.join(KERAS_SUFFIXES)}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as exc:
        raise InputError(f"weights: {path} can't be read: {first_line(exc)}") from exc


def _fresh(path: str, taken: Mapping[str, Any]) -> str:
    names = (path if i == 0 else f"{path}:{i}" for i in range(len(taken) + 1))
    return next(name for name in names if name not in taken)


# --- both -----------------------------------------------------------------------------------------------------------


def check_fit(what: object, arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ``InputError`` unless the arrays have the names and shapes of the wanted ones; ``what`` says whose.

    A batch counter of torch's may be absent: old checkpoints lack it, and it has no effect on what a network computes.
    """
    missing = [key for key in wanted if key not in arrays and not key.endswith("num_batches_tracked")]
    _check_names(what, missing, [key for key in arrays if key not in wanted])
    for key in arrays:
        if tuple(arrays[key].shape) != tuple(wanted[key].shape):
            raise InputError(
                f"weights: {what} does not fit the architecture: {key!r} has shape {tuple(arrays[key].shape)}, "
                f"wanted {tuple(wanted[key].shape)}"
            )


def _check_names(what: object, missing: list[str], unexpected: list[str]) -> None:
    problems = [
        f"{kind} {', '.join(map(repr, names[:3]))}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in (("it lacks", missing), ("it has an unexpected", unexpected))
        if names
    ]
    if problems:
        raise InputError(f"weights: {what} does not fit the architecture: {'; '.join(problems)}")
