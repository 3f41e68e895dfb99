"""Two libraries on one attack, two runs of one suite, many releases: what differs, and since when."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"flat_pixels": ["mark"]})
