"""The suite file, its keys, and the cells that it expands to."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "cell": ["Cell", "Result"],
        "expand": ["origin", "parts", "single", "with_transforms"],
        "file": ["Suite", "home", "load_suite", "studies"],
        "keys": ["TransferSpec"],
        "plan": ["Planned", "check", "count", "releases"],
        "profiles": ["reduced"],
    },
)
