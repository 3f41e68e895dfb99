"""The named architectures: the catalogue, and the networks of each framework."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "architecture": ["Architecture", "parse", "written"],
        "torch_networks": ["FoldedMobileNet", "cnn"],
        "twins": ["Layer", "Shape", "twin", "weighted_layers"],
    },
)
