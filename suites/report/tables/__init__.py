"""The tables of a run, a kind a file."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "errors": ["ERRORS", "sized", "without_eps"],
        "patches": ["targeted"],
        "scores": ["summary"],
        "training": ["stages", "trainings"],
    },
)
