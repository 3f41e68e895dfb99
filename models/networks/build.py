"""A model in its own framework: built, loaded or imported, before any adapter sees it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sparring.adapters.attacks import seeding
from sparring.adapters.errors import InputError, first_line, unknown
from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures import catalogue as architectures
from sparring.models.architectures import mobilenet
from sparring.models.networks import weights
from sparring.models.networks.determinism import seeded
from sparring.models.recipes import array_digest

Shape = tuple[int, int, int]


def use_keras(framework: str) -> None:
    """Import Keras on the backend of ``keras-tensorflow``, ``keras-torch`` or ``keras-jax``.

    Raises ``InputError`` if it has another, and where JAX isn't installed.
    """
    backend = framework.partition("-")[2]
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    guard()
    from sparring.adapters.frameworks.keras_shared import require_backend

    require_backend(backend)


def keras_here(framework: str) -> str:
    """Keras on the backend that this process has; where it has none yet, ``framework``."""
    keras = sys.modules.get("keras")
    return f"keras-{keras.backend.backend()}" if keras else framework


def build(architecture: str, framework: str, input_shape: Shape, classes: int) -> Any:
    """A new network of that architecture, with initial weights from the global generators."""
    if framework != "torch":
        use_keras(framework)
    return architectures.find(architecture, framework).build(framework.partition("-")[0], input_shape, classes)


def with_weights(architecture: str, framework: str, input_shape: Shape, classes: int, path: Path) -> Any:
    """The network with the weights of a file. Raises ``InputError`` for a file that can't be used or doesn't fit."""
    if path.suffix == ".npz" and architecture in mobilenet.NAMES:
        arrays = weights.read_npz(path)
        if framework == "torch" or mobilenet.is_folded(arrays):
            mobilenet.check(arrays, str(path))
            classes = len(arrays["predictions/bias"])
        if framework == "torch":
            from sparring.models.architectures.torch_networks import FoldedMobileNet

            return FoldedMobileNet(arrays).eval()
    network = build(architecture, framework, input_shape, classes)
    if framework == "torch":
        weights.load_torch(network, path)
        return network.eval()
    weights.load_keras(network, path)
    return network


def keras_file(path: Path, framework: str) -> Any:
    """The model of a .keras file, in safe mode: a file that holds code is refused with ``InputError``."""
    use_keras(framework)
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as exc:  # Keras raises many kinds, down to those of zipfile and json
        raise InputError(f"weights: {path} can't be loaded as a Keras model: {first_line(exc)}") from exc


def imported(name: str, base: Path) -> Any:
    """The torch module or Keras model ``package.module:name``, or what that function or class gives when it is called.

    It is imported with ``base`` and the current folder in front of the search path, and called with all generators
    seeded, so that it is the same model in every process. Raises ``InputError`` with the reason if that fails.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"object: {name!r} must be package.module:name")
    with _search_path(base), ExitStack() as stack:
        guard()
        try:
            value: Any = importlib.import_module(module_name)
        except Exception as exc:  # the module is the user's: anything can come out of it
            place = f"{base} and {Path.cwd()}"
            raise InputError(f"object: {module_name!r} can't be imported from {place}: {_reason(exc)}") from exc
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise InputError(f"object: {unknown(f'name in {module_name}', part, _public(value))}")
            value = getattr(value, part)
        if _framework(value) is None and callable(value):
            for family in ("torch", "keras"):
                if family in sys.modules:
                    stack.enter_context(seeded(0, family))
            stack.enter_context(seeding.seeded(0, of_tensorflow=False))
            try:
                value = value()
            except Exception as exc:
                raise InputError(f"object: {name} failed when it was called: {_reason(exc)}") from exc
    if _framework(value) is None:
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise InputError(
            f"object: {name} must be a torch module, a Keras model or a function that returns one, not {kind}"
        )
    return value


def framework_of(network: Any) -> str:
    """``torch``, ``keras-tensorflow``, ``keras-torch`` or ``keras-jax``."""
    framework = _framework(network)
    assert framework is not None
    return framework


def digest_of(network: Any) -> str:
    """sha256 over all weights of a torch module or Keras model."""
    arrays = weights.torch_arrays if _framework(network) == "torch" else weights.keras_arrays
    # in order and without names: Keras numbers those by how many models a process has made
    return array_digest(*arrays(network).values())


def _framework(thing: Any) -> str | None:
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    # Keras first: on the torch backend its models are torch modules as well
    if keras and isinstance(thing, keras.Model):
        return f"keras-{keras.backend.backend()}"
    return "torch" if torch and isinstance(thing, torch.nn.Module) else None


@contextmanager
def _search_path(base: Path) -> Iterator[None]:
    """Only while the user's module is imported and called: a file of theirs must not shadow a package later on."""
    before = list(sys.path)
    sys.path[:0] = [str(base.absolute()), str(Path.cwd())]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _public(thing: Any) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


def _reason(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {first_line(exc)}"
