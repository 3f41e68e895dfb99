"""Why two libraries' attack differs on an image."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"explanation": ["explain"]})
