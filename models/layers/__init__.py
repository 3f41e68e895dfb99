"""The layers of a network on some images, recorded in every framework."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"layer": ["Layer"]})
