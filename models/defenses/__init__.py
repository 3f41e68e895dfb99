"""Defenses by name: what stands around a model, and what changes how it is trained."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"catalogue": ["wrap_defended", "wrappers"], "defense": ["Defense"]})
