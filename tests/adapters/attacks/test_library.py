from __future__ import annotations

import sys
from typing import Any

import pytest

from sparring.adapters.attacks.library import Context, To, Unsupported, blaming, library_names, load_library, maps
from sparring.adapters.errors import InputError, LibraryError

CONTEXT = Context({"eps": 0.1, "tries": 3}, (1, 8, 8), 10, 4, 7, True)


def test_a_mapping_renames_converts_pins_and_notes() -> None:
    mapping = maps(
        "Theirs",
        eps=To("epsilon", lambda value, context: value * context.n),
        tries=Unsupported("it tries once", unless=lambda value, context: value == 1),
        pinned={"seed": lambda context: context.seed, "quiet": True},
        note="it is odd",
    )
    assert mapping.translate(CONTEXT) == (
        {"epsilon": 0.4, "seed": 7, "quiet": True},
        ["it is odd", "tries: it tries once"],
    )
    once: dict[str, Any] = {**CONTEXT.params, "tries": 1}
    assert mapping.translate(Context(once, (1, 8, 8), 10, 4, 7, True))[1] == ["it is odd"]
    assert mapping.keywords() == {"epsilon", "seed", "quiet"}


def test_the_three_libraries_are_found_by_their_entry_points() -> None:
    assert {"art", "foolbox", "torchattacks"} <= set(library_names())
    assert load_library("sparring.adapters.libraries.foolbox.bridge:LIBRARY") is load_library("foolbox")


def test_an_unknown_library_gets_the_nearest_names() -> None:
    with pytest.raises(InputError, match="Did you mean 'foolbox'"):
        load_library("foolbocks")
    with pytest.raises(InputError, match="can't be loaded"):
        load_library("no_such_package_at_all:LIBRARY")
    with pytest.raises(InputError, match=r"not a sparring\.adapters\.attacks\.library\.Library"):
        load_library("sparring.adapters.libraries.foolbox.bridge:ATTACKS")


def test_the_routes_start_with_the_native_one() -> None:
    assert load_library("art").routes("keras-tensorflow") == ("native", "bridged")
    assert load_library("torchattacks").routes("keras-tensorflow") == ("bridged",)
    assert load_library("foolbox").routes("onnx") == ("bridged",)


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    with (
        pytest.raises(LibraryError, match=r"Foo's Bar needs the package numba.*pip install 'sparring\[extras\]'"),
        blaming("Foo", "Bar"),
    ):
        raise ModuleNotFoundError("No module named 'numba'", name="numba")


def test_nan_that_a_library_hands_to_the_classifier_is_the_library_s_fault() -> None:
    with (
        pytest.raises(LibraryError, match="Foo's Bar gave the classifier what it can't take: images hold 3"),
        blaming("Foo", "Bar"),
    ):
        raise InputError("images hold 3 values that are NaN or infinite")


def test_a_table_is_data_and_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; import sparring.adapters.libraries.art.bridge, sparring.adapters.libraries.foolbox.bridge, sparring.adapters.libraries.torchattacks.bridge;"
        "heavy = {'art', 'foolbox', 'torchattacks', 'torch', 'tensorflow', 'keras'} & set(sys.modules); print(heavy)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
