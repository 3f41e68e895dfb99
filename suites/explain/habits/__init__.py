"""What a library does at each step, recorded, replayed and compared with variants of the attack."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "compare": ["Change", "Pair", "nearest", "recordable", "scale"],
        "gradient": ["Recipe", "cross_entropy", "margin", "recipe", "rounded", "simulate"],
        "replay": ["GRIDS", "read_loss"],
        "trace": ["Path", "Trace", "attacking"],
    },
)
