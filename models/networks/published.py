"""torchvision's published weights: by their enum, never by DEFAULT, which means others in another release.

They lie in torch hub's cache and are downloaded there where a network allows it. A file that was put there under the
official name is as good: its digest says which weights were used.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError, first_line
from sparring.models.networks import weights
from sparring.models.storage import short_timeout
from sparring.models.weights_enums import _member, _transforms


def fetched(architecture: str, enum: str) -> Path:
    """The file of the weights, downloaded to torch hub's cache if it isn't there.

    Raises ``InputError`` for weights of another network, and where they are neither here nor can be downloaded.
    """
    member = _member(architecture, enum)
    path = _place(member)
    if not path.is_file():
        _download(member.url, path)
    return path


def place(architecture: str, enum: str) -> Path:
    """Where the file of the weights is, or would be. Raises ``InputError`` for weights of another network."""
    return _place(_member(architecture, enum))


def facts(architecture: str, enum: str, path: Path, digest: str) -> dict[str, Any]:
    """What a result should say of the weights in a file of that sha256, as plain JSON values.

    ``weights``: the enum, the sha256 of the file and whether it is the one that torchvision publishes, as far as the
    digits in its name tell; ``transforms``: those of the weights' own definition.
    """
    of_file = {"enum": enum, "sha256": digest, "as_published": digest.startswith(_digits(path))}
    own = _transforms(_member(architecture, enum))
    return {
        "weights": of_file,
        "transforms": {
            "resize": own.resize,
            "crop": own.crop,
            "interpolation": own.interpolation,
            "mean": list(own.mean),
            "std": list(own.std),
        },
    }


def network(architecture: str, enum: str) -> Any:
    """torchvision's network with these weights, in evaluation mode. Nothing is unpickled.

    Raises ``InputError`` as ``fetched`` does, and for a file that can't be read or doesn't fit.
    """
    import torchvision

    path, member = fetched(architecture, enum), _member(architecture, enum)
    with _never_unpickle():
        try:
            made = torchvision.models.get_model(architecture, weights=member)
        except (pickle.UnpicklingError, zipfile.BadZipFile, *_BROKEN) as exc:
            why = _why(path, torchvision.models.get_model(architecture, weights=None)) or first_line(exc)
            raise InputError(f"weights: {path} can't be loaded as {enum}: {why}") from exc
    return made.eval()


_BROKEN = (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError)


def _why(path: Path, wanted: Any) -> str:
    """What is wrong with the file, in a line."""
    try:
        weights.load_torch(wanted, path)
    except InputError as exc:
        return str(exc).removeprefix(f"weights: {path} ")
    return ""


def _place(member: Any) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name


def _digits(path: Path) -> str:
    """The first digits of the sha256 of the published file, in which its name ends."""
    return path.stem.rpartition("-")[2]


def _download(url: str, path: Path) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with short_timeout():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_digits(path))
    except (OSError, RuntimeError) as exc:
        raise InputError(
            f"weights: {path.name} is not here and can't be downloaded ({first_line(exc)}): put {url} at {path}"
        ) from exc


@contextmanager
def _never_unpickle() -> Iterator[None]:
    """torchvision calls torch.load itself; this variable is how it is told ``weights_only``."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
