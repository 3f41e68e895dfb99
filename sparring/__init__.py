"""One classifier in the ring with every adversarial attack library at once.

    import sparring

    classifier = sparring.wrap(network, input_shape=(3, 32, 32))  # a torch module, a Keras model or an ONNX file
    result = sparring.attack(classifier, x, y, "pgd", library="foolbox", norm="linf", eps=8 / 255, steps=40)
    run = sparring.run("quickstart")  # a suite file, or a study that ships
    run = sparring.read("runs/quickstart")  # a finished run

Nothing is loaded before it is used: ``import sparring`` imports no framework and no attack library. The other names are
for packages that add a model, a data set, an attack, a defense or a library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparring._face import face

if TYPE_CHECKING:
    from sparring.adapters.attacks.catalogue import EPS_LINF, Attack
    from sparring.adapters.attacks.library import Library, RawAttack, To, Unsupported, load_library, maps
    from sparring.adapters.attacks.run import Attacked, attack
    from sparring.adapters.conformance.classifiers import checks_for, library_checks_for
    from sparring.adapters.errors import InputError, LibraryError, NotSupported, SparringError
    from sparring.adapters.parameters import Parameter
    from sparring.adapters.protocol import Classifier, Differentiable, check_cotangent, check_images, counted
    from sparring.adapters.wrap import wrap
    from sparring.adapters.wrappers.transformed import defended
    from sparring.models.architectures.architecture import Architecture
    from sparring.models.defenses.defense import Defense
    from sparring.suites.plan.file import Suite, load_suite
    from sparring.suites.report.finished import FinishedRun, read
    from sparring.suites.runner.run import Run, run

    __version__: str

__all__ = [
    "EPS_LINF",
    "Architecture",
    "Attack",
    "Attacked",
    "Classifier",
    "Defense",
    "Differentiable",
    "FinishedRun",
    "InputError",
    "Library",
    "LibraryError",
    "NotSupported",
    "Parameter",
    "RawAttack",
    "Run",
    "SparringError",
    "Suite",
    "To",
    "Unsupported",
    "__version__",
    "attack",
    "check_cotangent",
    "check_images",
    "checks_for",
    "counted",
    "defended",
    "library_checks_for",
    "load_library",
    "load_suite",
    "maps",
    "read",
    "run",
    "wrap",
]

_HOMES = {
    "adapters.wrap": ["wrap"],
    "adapters.attacks.run": ["Attacked", "attack"],
    "suites.runner.run": ["Run", "run"],
    "suites.plan.file": ["Suite", "load_suite"],
    "suites.report.finished": ["FinishedRun", "read"],
    "adapters.errors": ["InputError", "LibraryError", "NotSupported", "SparringError"],
    "adapters.protocol": ["Classifier", "Differentiable", "check_cotangent", "check_images", "counted"],
    "adapters.attacks.catalogue": ["EPS_LINF", "Attack"],
    "adapters.attacks.library": ["Library", "RawAttack", "To", "Unsupported", "load_library", "maps"],
    "adapters.conformance.classifiers": ["checks_for", "library_checks_for"],
    "adapters.parameters": ["Parameter"],
    "adapters.wrappers.transformed": ["defended"],
    "models.architectures.architecture": ["Architecture"],
    "models.defenses.defense": ["Defense"],
}
_of, __dir__, _ = face(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return import_module("importlib.metadata").version("sparring") if name == "__version__" else _of(name)
