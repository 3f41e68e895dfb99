"""Data sets: where images come from, which of them are drawn, and how pictures are made to fit."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"datasets": ["Dataset", "catalogue"], "pool": ["Progress"]})
