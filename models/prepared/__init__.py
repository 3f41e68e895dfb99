"""Models of a suite, prepared once and opened anywhere."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"model_ref": ["ModelRef"], "open": ["open_model", "open_network"], "prepare": ["is_prepared"]}
)
