"""What gets attacked: data sets, architectures, training and loading of models."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "model_spec": [
            "EnsembleModel",
            "ExportModel",
            "KINDS",
            "MODEL_KEYS",
            "ModelSpec",
            "OPTIONS",
            "ObjectModel",
            "OnnxModel",
            "OwnInput",
            "TrainedModel",
            "WeightsModel",
        ],
        "spec": ["ChainSpec", "DataSpec", "DefenseSpec", "Spec", "facts"],
        "storage": ["write_whole"],
    },
)
