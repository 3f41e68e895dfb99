"""The kinds of models: what each checks, what it follows from, and how it is made."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"kind": ["Kind", "Task", "options_of"], "table": ["kind_of"], "weights": ["self_described"]}
)
