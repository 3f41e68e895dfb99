"""The face of a package: the names that others may use, loaded when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

Face = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def face(package: str, homes: Mapping[str, Sequence[str]]) -> Face:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package: ``homes`` has its modules, each with its public names.

    A name that is also a module of the package can't be in it: once imported, the module would stand in its place.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def getattribute(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    return getattribute, lambda: [*home_of], [*home_of]
