"""The figures of a run, a kind a file."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"drawing": ["Figure", "INK"]})
