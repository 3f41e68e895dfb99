"""`sparring transfer`: a run of a suite whose images other models judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparring.adapters.errors import InputError, unknown
from sparring.suites.plan.file import Suite
from sparring.suites.plan.keys import TransferSpec
from sparring.suites.runner.run import Run, run


def transfer(
    source: str | Path | Mapping[str, Any],
    *,
    surrogates: str | None = None,
    targets: str | None = None,
    **options: Any,
) -> Run:
    """``run`` with a transfer matrix, also for a suite that asks for none: then all models are surrogates and targets.

    ``surrogates`` and ``targets`` are names joined by commas, instead of the suite's. Raises as ``run`` does.
    """
    chosen = {
        key: tuple(name.strip() for name in names.split(","))
        for key, names in (("surrogates", surrogates), ("targets", targets))
        if names is not None
    }

    def amend(suite: Suite) -> Suite:
        known = [model.name for model in suite.models]
        for key, names in chosen.items():
            for name in names:
                if name not in known:
                    raise InputError(f"--{key}: {unknown('model', name, known)}")
        spec = (suite.transfer or TransferSpec.model_validate({})).model_copy(update=chosen)
        return suite.model_copy(update={"transfer": spec})

    return run(source, amend=amend, **options)
