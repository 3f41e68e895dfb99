"""The process in which models are trained and attacks run.

A process of its own, because Keras takes one backend a process, because a library may abort, and so that a time limit
can be kept. It ends when its standard input does: killed runners leave nothing behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparring.adapters.process import Answering, Arrays, serve

if TYPE_CHECKING:
    from sparring.models.prepared.model_ref import ModelRef

Send = Callable[..., None]


def answer(request: Mapping[str, Any], _: Arrays, out: Answering) -> tuple[Mapping[str, Any], Arrays]:
    """Do the job that ``request["do"]`` names, with the others as its keywords."""
    keywords = dict(request)
    return _JOBS[keywords.pop("do")](out.tell, **keywords), ()


def _prepare(
    send: Send,
    spec: dict[str, Any],
    data: dict[str, Any],
    base: str,
    others: dict[str, Any],
    device: str,
    probabilities: bool = False,
) -> dict[str, Any]:
    from sparring.models.model_spec import model_spec
    from sparring.models.prepared.model_ref import ModelRef
    from sparring.models.prepared.prepare import prepare
    from sparring.models.spec import DataSpec

    ref = prepare(
        model_spec(spec),
        data=DataSpec.model_validate(data),
        base=Path(base),
        others={name: ModelRef.from_json(value) for name, value in others.items()},
        device=device,
        progress=lambda done, total, what: send("progress", done=done, total=total, what=what),
        probabilities=probabilities,
    )
    return ref.to_json()


def _flat(send: Send, model: dict[str, Any], run: str, cells: list[str], device: str) -> dict[str, Any]:
    from sparring.models.prepared.model_ref import ModelRef
    from sparring.models.prepared.open import open_model
    from sparring.suites.compare.flat_pixels import mark

    classifier: Any = open_model(ModelRef.from_json(model), device=device)
    for done, cell in enumerate(cells):
        mark(classifier, Path(run), cell)
        send("progress", done=done + 1, total=len(cells), what="cells")
    return {}


def _device(send: Send, device: str) -> dict[str, Any]:
    from sparring.adapters.frameworks.pytorch import choose_device

    return {"device": str(choose_device(device))}


class _Kept:
    """The last data set and model, which the next cell most likely wants again."""

    data: tuple[str, Any] | None = None
    model: tuple[str, Any] | None = None


def _opened(ref: ModelRef, device: str) -> Any:
    from sparring.models.prepared.open import open_model

    wanted = json.dumps([ref.to_json(), device])
    if _Kept.model is None or _Kept.model[0] != wanted:
        _Kept.model = None  # two networks at once may be more than there is memory for
        _Kept.model = (wanted, open_model(ref, device=device))
    return _Kept.model[1]


def _judge(
    send: Send, model: dict[str, Any], run: str, cell: str, key: str, batch_size: int, device: str
) -> dict[str, Any]:
    from sparring.models.prepared.model_ref import ModelRef
    from sparring.suites.transfer.judge_cell import judge

    judge(_opened(ModelRef.from_json(model), device), Path(run), cell, key, batch_size=batch_size)
    return {}


def _measure(
    send: Send, what: str, model: dict[str, Any], device: str, folder: str, asked: dict[str, Any]
) -> dict[str, Any]:
    from sparring.models.prepared.model_ref import ModelRef
    from sparring.suites.certify.measures import MEASURES

    def progress(done: int, total: int, unit: str) -> None:
        send("progress", done=done, total=total, what=unit)

    ref = ModelRef.from_json(model)
    return MEASURES[what](ref, _opened(ref, device), Path(folder), asked, progress)


def _cell(
    send: Send, cell: dict[str, Any], data: dict[str, Any], base: str, run: str, replace: bool, device: str
) -> dict[str, Any]:
    from sparring.adapters.errors import StorageError
    from sparring.models.data import datasets
    from sparring.models.defenses.catalogue import wrap_defended
    from sparring.models.spec import DataSpec
    from sparring.suites.plan.cell import Cell
    from sparring.suites.results import store
    from sparring.suites.runner.cells import failed, run_cell

    this = Cell.from_json(cell)
    wanted = json.dumps([data, base])
    if _Kept.data is None or _Kept.data[0] != wanted:
        _Kept.data = (wanted, datasets.load(DataSpec.model_validate(data), base=Path(base)))
    blind = this.attacker == "unaware"
    try:
        bare = _opened(this.model.undefended, device)
        judge = wrap_defended(bare, this.model.wrappers, seed=this.seed) if this.model.wrappers else bare
        seen = wrap_defended(bare, this.model.wrappers, seed=this.seed, attacker="unaware") if blind else judge
    except Exception as error:
        result = failed(error)
    else:
        result = run_cell(
            this,
            seen,
            _Kept.data[1],
            judge=judge,
            progress=lambda done, total: send("progress", done=done, total=total, what="images"),
            started=lambda: send("started"),
        )
        # ONNX Runtime falls back to the CPU without a word: what counts are the session's own providers
        where = getattr(bare, "device", None) or "+".join(getattr(bare, "providers", ()))
        result = replace_fields(result, facts={**result.facts, "device": str(where)})
    try:
        store.write(Path(run), this.id, this.identity(), result, replace=replace)
    except OSError as error:
        raise StorageError(f"{run} can't be written ({error.strerror or error})") from error
    return {"status": result.status, "reason": result.reason}


_JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": _prepare,
    "cell": _cell,
    "judge": _judge,
    "flat": _flat,
    "device": _device,
    "measure": _measure,
}


if __name__ == "__main__":
    serve(answer)
