"""The operators of ONNX in torch, with their derivatives, a family a file."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "shapes": ["identity"],
        "signature": ["Function", "NoTensor", "Signature", "dtype_of"],
        "table": ["OPERATORS", "find"],
    },
)
