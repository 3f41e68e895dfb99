"""What one package uses of another is named in the other's face."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("sparring", "adapters", "models", "suites") for path in (ROOT / room).rglob("*.py"))
MODULES = {
    "sparring." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in FILES
    if path.parent.name != "sparring"
}
PACKAGES = [name.removesuffix(".__init__") for name in MODULES if name.endswith(".__init__") and name.count(".") > 2]


def uses() -> set[tuple[str, str, str, str]]:
    """(file, package, module, name) of every import of a name from a module of another package."""
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            home = MODULES.get(node.module or "") if isinstance(node, ast.ImportFrom) else None
            if home is not None and home.parent != path.parent and home.parent not in path.parents:
                package, _, module = str(node.module).rpartition(".")
                found |= {(str(path.relative_to(ROOT)), package, module, alias.name) for alias in node.names}
    return found


def test_every_name_that_another_package_imports_is_in_the_face():
    lacking = [
        f"{file}: {name} of {package}.{module} is not in the face of {package}"
        for file, package, module, name in sorted(uses())
        if package in PACKAGES
        and f"{package}.{name}" not in MODULES  # a module stands where the name would
        and not name.startswith("_")
        and name not in import_module(package).__dict__.get("__all__", ())
    ]
    assert lacking == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_face_is_there(package):
    own = import_module(package)
    assert own.__doc__
    names = own.__dict__.get("__all__", ())
    assert {name for name in names if f"{package}.{name}" in MODULES} == set()
    used = {name for _, home, _, name in uses() if home == package}
    assert {name for name in names if name not in used} == set(), "nobody uses them: they are no part of the face"
    for name in names:
        getattr(own, name)
