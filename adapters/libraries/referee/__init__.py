"""The attacks as their papers have them, in NumPy on the protocol: what the libraries are compared with."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(__name__, {"terms": ["margin_loss"]})
