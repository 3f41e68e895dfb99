"""Other models of the suite, decided together: nothing is made."""

from __future__ import annotations

from sparring.models.prepared.composed import ensemble_ref
from sparring.models.prepared.kinds.kind import Kind

KIND = Kind(
    work=lambda spec: f"put {', '.join(spec.ensemble)} together",
    composed=lambda spec, base, others, _: ensemble_ref(spec, base, others),
)
