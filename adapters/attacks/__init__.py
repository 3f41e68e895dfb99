"""Attacks by name: the catalogue of canonical attacks, a request for one, one run of it, and how success is judged."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "catalogue": ["ATTACKS", "Attack", "EPS_LINF", "Needs", "START_DRAWS", "find", "in_words", "shortest"],
        "distances": ["NORMS", "TOLERANCE", "project"],
        "inputs": ["labels_of_call"],
        "library": [
            "AttackMapping",
            "Call",
            "Context",
            "Crafted",
            "Fit",
            "Frameworks",
            "Library",
            "RawAttack",
            "Reconcile",
            "Route",
            "Run",
            "To",
            "Unsupported",
            "blaming",
            "library_names",
            "load_library",
            "maps",
        ],
        "request": ["Request", "parts", "why_not"],
        "run": ["Attacked", "attack", "crafting", "run_call"],
        "seeding": ["seeded"],
        "starts": ["draw_start", "find_starts"],
    },
)
