"""Networks of a framework: built, filled with weights, converted and exported."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"convert": ["Opened"], "determinism": ["placed", "seeded"]})
