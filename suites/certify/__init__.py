"""Are two models the same function? Logits, gradients, and verdicts on attacked images."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"measures": ["MEASURES"], "reference": ["images", "open_reference", "resolve"]}
)
