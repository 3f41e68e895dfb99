"""From a framework's model to a classifier: PyTorch, and Keras on TensorFlow, torch and JAX."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "coexistence": ["guard"],
        "keras": ["keras_classifier"],
        "keras_jax": ["KerasJaxClassifier"],
        "keras_shared": ["image_layout", "require_backend", "without_softmax"],
        "keras_tensorflow": ["KerasTensorflowClassifier"],
        "keras_torch": ["KerasTorchClassifier"],
        "preprocessing": [
            "ChannelOrder",
            "LEAST_PROBABILITY",
            "Layout",
            "Output",
            "Preprocessing",
            "check_input_shape",
            "check_output",
        ],
        "pytorch": ["TorchClassifier", "choose_device", "evaluating", "exactly"],
        "torch_view": ["TorchView"],
    },
)
