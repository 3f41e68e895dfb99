"""The command line, a file a command: each is a thin face of a Python function."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"app": ["main"]})
