"""`sparring list` and `schema`: attacks, defenses, libraries, models, data sets and studies; a suite file's keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sparring.adapters.attacks.catalogue import catalogue, in_words
from sparring.adapters.errors import InputError, unknown
from sparring.adapters.parameters import REQUIRED

if TYPE_CHECKING:
    from sparring.adapters.attacks.library import Library
    from sparring.models.defenses.defense import Defense


def list_command(
    what: Annotated[
        str, typer.Argument(help="attacks, parameters, libraries, ledger, models, datasets, operators or studies")
    ],
) -> None:
    """List what there is: attacks (canonical and raw, and what runs where), models, data sets, ONNX operators, ..."""
    from sparring.suites.cli.console import console

    if what not in LISTINGS:
        raise InputError(unknown("listing", what, LISTINGS))
    with console.status(f"asking the installed packages for their {what} ..."):
        parts = LISTINGS[what]()
    for part in parts:
        console.print(part)


def schema_command() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    from sparring.suites.plan.file import Suite

    print(json.dumps(Suite.model_json_schema(), indent=2))


def attacks() -> list[Any]:
    """The canonical attacks with each library's class, then every other class of each library by the raw door."""
    from sparring.adapters.attacks.library import Frameworks, Unsupported, library_names, load_library
    from sparring.adapters.attacks.request import request, why_not

    libraries = [load_library(name) for name in library_names()]
    headers = ("attack", "norm", "goal", "needs", "runs on", *(each.name for each in libraries), "source")
    canonical = _table("Canonical attacks", *headers)
    for attack in catalogue().values():
        asked = request(attack.name, norm=attack.norm, params=attack.example)
        runs = [one for one in Frameworks if any(why_not(each, asked, one) is None for each in libraries)]
        rules = [each.find(attack) for each in libraries]
        classes = ["–" if isinstance(rule, Unsupported) else rule.target for rule in rules]
        where = "all" if runs == list(Frameworks) else ", ".join(runs)
        _row(canonical, attack.name, attack.norm, attack.goal, attack.needs, where, *classes, attack.source)
    parts: list[Any] = [canonical]
    parts.append("The parameters of each, with their defaults: `sparring list parameters`.")
    for library in libraries:
        parts += _raw(library)
    return parts


def _raw(library: Library) -> list[Any]:
    from sparring.adapters.attacks.library import Frameworks, Unsupported

    try:
        classes = library.raw()
    except InputError as error:
        return [escape(str(error))]
    named = {
        rule.target: attack
        for attack in catalogue().values()
        if not isinstance(rule := library.find(attack), Unsupported)
    }
    title = f"{library.name} {library.version()}: by the raw door, as {library.name}:ClassName"
    table = _table(title, "class", "needs", *Frameworks, "remark")
    for name, raw in sorted(classes.items()):
        runs = [raw.unsupported is None and framework in raw.runs_on for framework in Frameworks]
        remark = raw.unsupported or (f"canonical: {named[name].name}" if name in named else "")
        _row(table, f"{library.name}:{name}", raw.needs, *("yes" if one else "–" for one in runs), remark)
    return [table]


def parameters() -> list[Any]:
    """Every parameter of every canonical attack with its default; one that follows from others is shown for eps 0.1."""
    table = _table("Parameters of the canonical attacks", "attack", "norm", "parameter", "default", "meaning", "valid")
    for attack in catalogue().values():
        usual = attack.resolve(attack.example)
        for name, parameter in attack.parameters.items():
            shown = in_words(list(usual[name])) if parameter.type is list else str(usual[name])
            default = "required" if name in attack.required else shown
            default += " (for eps 0.1)" if callable(parameter.default) else ""
            valid = " or ".join(parameter.choices) or parameter.described()
            _row(table, attack.name, attack.norm, name, default, parameter.help, valid)
    return [table]


def defenses() -> list[Any]:
    """The defenses with how gradients pass, parameters with their defaults and source; then ART's own classes."""
    from sparring.models.defenses.art import catalogue as of_art
    from sparring.models.defenses.catalogue import catalogue as shipped

    table = _table("Defenses", "name", "kind", "what it does", "gradients", "parameters", "source")
    meaning = _table("Parameters of the defenses", "defense", "parameter", "default", "meaning", "valid")
    own = _table("ART's own, by their own name", "name", "kind", "what it does", "gradients", "parameters", "remark")
    for one in shipped():
        _row(table, one.name, one.kind, one.description, one.gradients or "–", _written(one), one.source)
        for name, parameter in one.parameters.items():
            valid = " or ".join(map(str, parameter.choices)) or parameter.described()
            _row(meaning, one.name, name, _default(one, name), parameter.help, valid)
    for name, found in of_art().items():
        if isinstance(found, str):
            _row(own, f"art:{name}", "", "", "", "", f"not for classifiers of images: {found}")
        else:
            _row(own, found.name, found.kind, found.description, found.gradients or "–", _written(found), found.source)
    return [table, meaning, own, "Also your own: package.module:object (docs/defenses.md)."]


def _written(defense: Defense) -> str:
    return ", ".join(f"{name}={_default(defense, name)}" for name in defense.parameters)


def _default(defense: Defense, name: str) -> str:
    default = defense.parameters[name].default
    if default is REQUIRED:
        return "required"
    if not callable(default):
        return str(default)
    usual = defense.resolve({})[name]
    return f"{usual:.4g} (with the others' defaults)" if isinstance(usual, float) else str(usual)


def libraries() -> list[Any]:
    """The attack libraries with their releases and how many canonical attacks each has, by framework."""
    from sparring.adapters.attacks.library import Frameworks, Unsupported, library_names, load_library
    from sparring.adapters.attacks.request import request, why_not

    table = _table("Attack libraries", "library", "release", "wanted", "canonical attacks", *Frameworks)
    for name in library_names():
        library = load_library(name)
        try:
            release = library.version()
        except InputError as error:
            _row(table, name, "not installed", library.requires, "", *("" for _ in Frameworks))
            table.caption = escape(str(error))
            continue
        has = [attack for attack in catalogue().values() if not isinstance(library.find(attack), Unsupported)]
        runs = []
        for framework in Frameworks:
            asked = [request(a.name, norm=a.norm, params=a.example) for a in has]
            able = sum(why_not(library, one, framework) is None for one in asked)
            runs.append(f"{able} ({', '.join(library.routes(framework))})")
        _row(table, name, release, library.requires, str(len(has)), *runs)
    return [table]


def ledger() -> list[Any]:
    """Every known difference of a library from an attack's source."""
    from sparring.adapters.libraries.ledger import entries

    table = _table(
        "The ledger", "id", "attacks", "libraries", "cause", "effect", "where", "taken away by", "what remains"
    )
    for entry in entries().values():
        under = ", ".join(f"{key} {value}" for key, value in entry.when.items())
        attacks = "; ".join(entry.attacks) + (f" ({under})" if under else "")
        whose = ", ".join(f"{name} {releases}" for name, releases in entry.libraries.items())
        where = "; ".join(entry.where.values())
        _row(
            table, entry.id, attacks, whose, entry.cause, entry.effect, where, entry.reconciliation, entry.remains or ""
        )
    return [table]


def models() -> list[Any]:
    """The architectures by name and the frameworks that each is written for."""
    from sparring.models.architectures.catalogue import catalogue as architectures

    table = _table("Architectures", "name", "frameworks", "what it is", "parameters")
    for info in architectures():
        taken = info.parameters(info.frameworks[0])
        _row(table, info.name, ", ".join(info.frameworks), info.description, _defaults(taken))
    return [
        table,
        "Parameters are given with the name: cnn(dropout=0.3, units=64).",
        "Also your own: object: package.module:name, onnx: file.onnx, weights: file.keras (README).",
    ]


def _defaults(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" if value is not REQUIRED else key for key, value in parameters.items())


def datasets() -> list[Any]:
    """The data sets by name and where each was found."""
    from sparring.models.data.datasets import catalogue as data_sets

    table = _table("Data sets", "name", "where", "shape", "classes")
    for info in data_sets():
        shape = "×".join(map(str, info.shape)) if info.shape else ""
        _row(table, info.name, info.where, shape, str(info.classes or ""))
    return [table, "Also your own: data: {path: file.npz} or {path: folder/} with one folder a class."]


def studies() -> list[Any]:
    """The suites that ship."""
    from sparring.suites.plan.file import studies as shipped

    table = _table("Studies", "name", "question")
    for name, description in shipped().items():
        _row(table, name, description)
    return [table]


def operators() -> list[Any]:
    """The operators of ONNX that are evaluated, and differentiated, in torch; a file of others has no gradients."""
    from sparring.adapters.onnx.operators.table import OPERATORS

    table = _table("ONNX operators", "domain", "how many", "operators")
    for domain, functions in OPERATORS.items():
        _row(table, domain or "ai.onnx", str(len(functions)), ", ".join(sorted(functions)))
    return [table, "A file with another one is attacked as a black box; a row that wants gradients names it."]


def _table(title: str, *headers: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _row(table: Table, *texts: str) -> None:
    table.add_row(*(escape(text) for text in texts))


LISTINGS: Mapping[str, Callable[[], list[Any]]] = {
    "attacks": attacks,
    "defenses": defenses,
    "parameters": parameters,
    "libraries": libraries,
    "ledger": ledger,
    "models": models,
    "datasets": datasets,
    "operators": operators,
    "studies": studies,
}
