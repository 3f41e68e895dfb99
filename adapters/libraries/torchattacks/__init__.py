"""torchattacks."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"reconcile_autoattack": ["draws_for_each_image", "steps_of_each_image"]}
)
