"""Training: one loop for every framework, and the same weights every time."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "augmentation": ["rotate_shift_zoom"],
        "learner": ["History", "Learner", "Targets"],
        "loop": ["Batch", "Begun", "Change", "TRAINING_VERSION", "Training", "evaluate", "probabilities", "row_of"],
        "train": ["trained"],
    },
)
