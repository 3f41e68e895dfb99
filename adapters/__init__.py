"""One protocol between classifiers and attack libraries, and everything foreign behind it.

Importing this package imports nothing heavy: a framework or a library is loaded by the first thing that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# At once, and not by __getattr__: importing the submodule later would put the module where the function belongs.
from sparring.adapters.wrap import check_outputs, wrap

if TYPE_CHECKING:
    from sparring.adapters.attacks.run import Attacked, attack
    from sparring.adapters.errors import InputError, LibraryError, NotSupported, SparringError
    from sparring.adapters.frameworks.keras_jax import KerasJaxClassifier
    from sparring.adapters.frameworks.keras_tensorflow import KerasTensorflowClassifier
    from sparring.adapters.frameworks.keras_torch import KerasTorchClassifier
    from sparring.adapters.frameworks.pytorch import TorchClassifier
    from sparring.adapters.frameworks.torch_view import TorchView
    from sparring.adapters.onnx.classifier import OnnxClassifier
    from sparring.adapters.protocol import Classifier, Counter, Differentiable, TensorflowNative, TorchNative

__all__ = [
    "Attacked",
    "Classifier",
    "Counter",
    "Differentiable",
    "InputError",
    "KerasJaxClassifier",
    "KerasTensorflowClassifier",
    "KerasTorchClassifier",
    "LibraryError",
    "NotSupported",
    "OnnxClassifier",
    "SparringError",
    "TensorflowNative",
    "TorchClassifier",
    "TorchNative",
    "TorchView",
    "attack",
    "check_outputs",
    "wrap",
]

_HOMES = {
    "errors": ("InputError", "LibraryError", "NotSupported", "SparringError"),
    "attacks.run": ("Attacked", "attack"),
    "frameworks.keras_tensorflow": ("KerasTensorflowClassifier",),
    "frameworks.keras_jax": ("KerasJaxClassifier",),
    "frameworks.keras_torch": ("KerasTorchClassifier",),
    "onnx.classifier": ("OnnxClassifier",),
    "protocol": ("Classifier", "Counter", "Differentiable", "TensorflowNative", "TorchNative"),
    "frameworks.pytorch": ("TorchClassifier",),
    "frameworks.torch_view": ("TorchView",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
