"""The laws of classifiers and of libraries, as checks that anyone can run."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"classifiers": ["checks_for", "library_checks_for"]})
