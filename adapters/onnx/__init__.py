"""From an ONNX file to a classifier: ONNX Runtime for the logits, our own evaluator for the gradients."""

from sparring._face import face

__getattr__, __dir__, __all__ = face(
    __name__, {"classifier": ["OnnxClassifier", "onnx_classifier"], "declared": ["declared_dimensions"]}
)
