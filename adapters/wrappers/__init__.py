"""Classifiers around classifiers: ensembles, deployed defenses, gradient noise, other units."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "ensemble": ["Ensemble", "LACKING_IN_A_VOTE"],
        "transformed": ["Coins", "Pull", "Transform", "coins", "defended"],
        "units": ["IN_UNITS_OF_THE_IMAGE", "Space", "View", "view"],
    },
)
