"""The run folder: stored results, rows, metrics, manifest."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "labels": ["latex", "places", "row_labels"],
        "manifest": ["Described"],
        "metrics": ["TOP", "mcnemar", "paired_difference", "softmax", "wilson"],
        "rows": ["read_results"],
        "stored_run": ["Arrays", "StoredRun"],
    },
)
