"""Images that travel: every target judges every finished cell."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"judge_cell": ["judge"], "matrix": ["Transfer"]})
