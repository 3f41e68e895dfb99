"""ONNX files as today's exporters write them: small networks of torch, Keras and scikit-learn, each with its source.

Nothing here knows the evaluator. A file is built when it is first asked for, into one folder of this process.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparring.adapters.protocol import Differentiable

CLASSES = 5
_temporary = TemporaryDirectory()
FOLDER = Path(_temporary.name)


@dataclass(frozen=True)
class Source:
    """How to write a file, the options with which to ``wrap`` it, and what it was made of."""

    write: Callable[[Path], None]
    options: dict[str, Any] = field(default_factory=dict)
    classifier: Callable[[], Any] | None = None
    """the adapter of the model that was exported; of scikit-learn the model itself"""


@lru_cache
def path_of(name: str) -> Path:
    """The file of that name in ``ZOO`` or ``BLACK_BOXES``, written once."""
    path = FOLDER / f"{name.replace(' ', '-').replace(',', '')}.onnx"
    with quiet():
        source_of(name).write(path)
    return path


@lru_cache
def source_of(name: str) -> Source:
    """What the file was made of."""
    return {**ZOO, **BLACK_BOXES}[name]()


# --- torch ----------------------------------------------------------------------------------------------------------


def torch_file(
    build: Callable[[], nn.Module], shape: tuple[int, int, int], *, opset: int | None = None, legacy: bool = False
) -> Source:
    """Any batch size; ``legacy`` is the exporter that traces TorchScript, the other one is torch's own today."""
    torch.manual_seed(0)
    module = _settled(build(), shape)

    def write(path: Path) -> None:
        example = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        batch: dict[str, Any] = {"dynamo": True, "external_data": False, "verbose": False}
        batch["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
        if legacy:
            batch = {"dynamo": False, "dynamic_axes": {"images": {0: "batch"}, "scores": {0: "batch"}}}
        torch.onnx.export(
            module, (example,), str(path), input_names=["images"], output_names=["scores"], opset_version=opset, **batch
        )

    def classifier() -> Differentiable:
        from sparring.adapters.frameworks.pytorch import TorchClassifier

        return TorchClassifier(module, input_shape=shape, device="cpu")

    return Source(write, {}, classifier)


def _settled(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """In evaluation mode; batch norms know their inputs, for what untrained ones give shrinks to nothing."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module(torch.rand(16, *shape))
    return module.eval()


def plain_cnn() -> nn.Module:
    """Convolutions with padding, groups and dilation, both poolings, batch norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=4, dilation=2),
        nn.LeakyReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.ELU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, CLASSES),
    )


def dense() -> nn.Module:
    """Every smooth activation, and layer norm."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.GELU(),
        nn.LayerNorm(24),
        nn.Linear(24, 24),
        nn.SiLU(),
        nn.Linear(24, 24),
        nn.Softplus(),
        nn.Linear(24, 24),
        nn.Mish(),
        nn.Linear(24, 24),
        nn.GELU(approximate="tanh"),
        nn.Linear(24, 24),
        nn.SELU(),
        nn.Linear(24, CLASSES),
    )


def resnet(blocks: tuple[int, ...] = (1, 1, 1, 1)) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, list(blocks), num_classes=CLASSES)


def mobile_v2() -> nn.Module:
    from torchvision.models import mobilenet_v2

    blocks = [[1, 8, 1, 1], [6, 12, 2, 2], [6, 16, 2, 2]]  # expansion, channels, repeats, stride
    return mobilenet_v2(num_classes=CLASSES, width_mult=0.5, inverted_residual_setting=blocks)


def mobile_v3() -> nn.Module:
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    blocks = [
        InvertedResidualConfig(16, 3, 16, 16, True, "RE", 2, 1, 0.5),
        InvertedResidualConfig(16, 5, 32, 24, True, "HS", 2, 1, 0.5),
        InvertedResidualConfig(24, 5, 48, 24, False, "HS", 1, 2, 0.5),
    ]
    return MobileNetV3(blocks, 64, num_classes=CLASSES)


def squeeze() -> nn.Module:
    from torchvision.models import squeezenet1_1

    return squeezenet1_1(num_classes=CLASSES)


def shuffle() -> nn.Module:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 64], num_classes=CLASSES)


def densely() -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(8, (2, 2), 16, num_classes=CLASSES)


def efficient() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(4, 3, 2, 8, 16, 1), MBConvConfig(4, 5, 2, 16, 24, 1)]
    return EfficientNet(blocks, dropout=0.2, num_classes=CLASSES)


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], layer_scale=0.5, num_classes=CLASSES)


def vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(net.heads.head.weight)  # type: ignore[union-attr, arg-type]  # zero in a new one
    return net


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 8, [2, 2], [1, 2], [4, 4], num_classes=CLASSES)


class Recurrent(nn.Module):
    """The rows of an image in their order; the class from the last output."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.cells = kind(24, 12, batch_first=True, **options)
        self.head = nn.Linear(12 * (2 if options.get("bidirectional") else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 1, 3).flatten(2)
        last: Tensor = self.head(self.cells(rows)[0][:, -1])
        return last


class Attention(nn.Module):
    """torch's own encoder layer over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(24, 3, 32, batch_first=True, norm_first=True, activation="gelu")
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(x.permute(0, 2, 1, 3).flatten(2)).mean(1))
        return scores


# --- Keras on TensorFlow --------------------------------------------------------------------------------------------


def keras_file(build: Callable[[], Any], *, opset: int | None = None, softmax: bool = False) -> Source:
    """By Keras' own ``export``, or with an ``opset`` by tf2onnx from the model's function; channels last.

    tf2onnx writes opset 18 at most, and ONNX's own converter lifts that to a newer one.
    """
    model, options = _keras(build), {"output": "probabilities"} if softmax else {}

    def write(path: Path) -> None:
        model(np.zeros((1, *model.input_shape[1:]), np.float32))  # Keras exports only what was called once
        if opset is None:
            model.export(str(path), format="onnx", verbose=False)
            return
        import tensorflow as tf
        import tf2onnx

        function = tf.function(
            lambda images: model(images, training=False),
            input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")],
        )
        tf2onnx.convert.from_function(function, function.input_signature, opset=min(opset, 18), output_path=str(path))
        if opset > 18:
            import onnx
            from onnx.version_converter import convert_version

            onnx.save(convert_version(onnx.load(path), opset), path)

    return Source(write, options, partial(_of_keras, build, softmax))


@lru_cache
def _keras(build: Callable[[], Any]) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return build()


@lru_cache
def _of_keras(build: Callable[[], Any], softmax: bool) -> Differentiable:
    from sparring.adapters.frameworks.keras_tensorflow import KerasTensorflowClassifier

    return KerasTensorflowClassifier(_keras(build), device="cpu", output="probabilities" if softmax else "logits")


def _rows(shape: tuple[int, int, int], *layers: Any) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


def _smooth(x: Any) -> Any:
    """The exact one becomes an operator ``Erfc`` in tf2onnx, which ONNX doesn't have."""
    import keras

    return keras.activations.gelu(x, approximate=True)


def keras_cnn(activation: str | None = None) -> Any:
    from keras import layers

    return _rows(
        (12, 12, 3),
        layers.Conv2D(8, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Conv2D(8, 3, strides=2, padding="same"),
        layers.LeakyReLU(),
        layers.AveragePooling2D(2, 1, padding="same"),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(16, activation="tanh"),
        layers.Dense(CLASSES, activation=activation),
    )


def keras_recurrent(kind: str, **options: Any) -> Any:
    from keras import layers

    cells: Any = getattr(layers, kind)(8, **options)
    return _rows((8, 8, 3), layers.Reshape((8, 24)), cells, layers.Dense(CLASSES))


def keras_bidirectional() -> Any:
    from keras import layers

    return _rows((8, 8, 3), layers.Reshape((8, 24)), layers.Bidirectional(layers.LSTM(6)), layers.Dense(CLASSES))


def keras_residual() -> Any:
    """Residual blocks of a mobile network: expansion, depthwise, a linear bottleneck, squeeze and excitation."""
    import keras
    from keras import layers

    images = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(layers.Rescaling(2.0, -1.0)(images))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    for _ in range(2):
        y = layers.Conv2D(16, 1, activation="silu")(x)
        y = layers.DepthwiseConv2D(3, padding="same", activation="hard_swish")(y)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        y = layers.multiply([y, layers.Conv2D(16, 1, activation="hard_sigmoid")(gate)])
        x = layers.add([x, layers.Conv2D(8, 1)(y)])
    x = layers.SeparableConv2D(12, 3, padding="same", activation="elu")(layers.ZeroPadding2D(1)(x))
    return keras.Model(images, layers.Dense(CLASSES)(layers.GlobalMaxPooling2D()(x)))


def keras_attention() -> Any:
    import keras
    from keras import layers

    images = keras.Input((8, 8, 3))
    x = layers.Reshape((8, 24))(images)
    x = layers.add([x, layers.MultiHeadAttention(2, 8)(layers.LayerNormalization()(x), x)])
    x = layers.add([x, layers.Dense(24)(layers.Dense(32, activation=_smooth)(layers.LayerNormalization()(x)))])
    return keras.Model(images, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


# --- scikit-learn, and what has no gradients ------------------------------------------------------------------------


@lru_cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's own: images (1797, 1, 8, 8), float32 in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32)[:, None], bunch.target.astype(np.int64)


def sklearn_file(build: Callable[[], Any], **options: Any) -> Source:
    """Fitted to 600 digits; one row of 64 numbers an image; outputs are the label and the probabilities."""
    x, y = digits()
    rows = x.reshape(len(x), -1)
    model = build().fit(rows[:600], y[:600])

    def write(path: Path) -> None:
        from skl2onnx import to_onnx

        written = to_onnx(model, rows[:1], options={id(model): options or {"zipmap": False}})
        path.write_bytes(written.SerializeToString())

    return Source(write, {"input_shape": (1, 8, 8), "output": "probabilities"}, lambda: model)


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200)


def perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((24,), learning_rate_init=0.01, max_iter=20, random_state=0)


def scaled(last: Callable[[], Any]) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), last())


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, max_depth=8, random_state=0)


def quantised(how: str) -> Source:
    """The plain CNN in int8, as ONNX Runtime's own tool writes it."""

    def write(path: Path) -> None:
        import onnxruntime.quantization as tool

        float_model = str(path_of("torch cnn, opset 18"))
        if how == "dynamic":
            float_model = str(path_of("torch cnn, legacy 13"))  # of the other exporter it can't infer the shapes
            tool.quantize_dynamic(float_model, str(path), weight_type=tool.QuantType.QUInt8)
            return
        batches = iter([{"images": images((3, 12, 12), 4, seed)} for seed in range(3)])

        class Calibration(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
            def get_next(self) -> Any:
                return next(batches, None)

        chosen = tool.QuantFormat.QDQ if how == "qdq" else tool.QuantFormat.QOperator
        tool.quantize_static(float_model, str(path), Calibration(), quant_format=chosen)

    return Source(write)


def images(shape: tuple[int, ...], n: int = 6, seed: int = 0) -> np.ndarray:
    """Uniform in [0, 1], float32 (n, *shape)."""
    return np.random.default_rng(seed).random((n, *shape), np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters print and warn at length."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_SMALL, _MIDDLE, _LARGE = (3, 12, 12), (3, 16, 16), (3, 32, 32)
_ROWS = (3, 8, 8)
_LSTM = partial(keras_recurrent, "LSTM")

ZOO: dict[str, Callable[[], Source]] = {
    "torch cnn": partial(torch_file, plain_cnn, _SMALL),
    "torch cnn, opset 18": partial(torch_file, plain_cnn, _SMALL, opset=18),
    "torch cnn, legacy 13": partial(torch_file, plain_cnn, _SMALL, opset=13, legacy=True),
    "torch dense": partial(torch_file, dense, (1, 8, 8)),
    "torch dense, legacy": partial(torch_file, dense, (1, 8, 8), legacy=True),
    "torch resnet": partial(torch_file, resnet, _LARGE),
    "torch resnet18, legacy": partial(torch_file, partial(resnet, (2, 2, 2, 2)), _LARGE, legacy=True),
    "torch mobilenet v2": partial(torch_file, mobile_v2, _LARGE),
    "torch mobilenet v2, legacy": partial(torch_file, mobile_v2, _LARGE, legacy=True),
    "torch mobilenet v3, legacy": partial(torch_file, mobile_v3, _LARGE, legacy=True),
    "torch squeezenet, legacy": partial(torch_file, squeeze, _LARGE, legacy=True),
    "torch shufflenet, legacy": partial(torch_file, shuffle, _LARGE, legacy=True),
    "torch densenet, legacy": partial(torch_file, densely, _LARGE, legacy=True),
    "torch efficientnet": partial(torch_file, efficient, _LARGE),
    "torch convnext": partial(torch_file, convnext, _LARGE),
    "torch vit": partial(torch_file, vision_transformer, _MIDDLE),
    "torch vit, legacy": partial(torch_file, vision_transformer, _MIDDLE, legacy=True),
    "torch swin": partial(torch_file, swin, _MIDDLE),
    "torch encoder": partial(torch_file, Attention, _ROWS),
    "torch lstm, legacy": partial(torch_file, partial(Recurrent, nn.LSTM, num_layers=2), _ROWS, legacy=True),
    "torch rnn": partial(torch_file, partial(Recurrent, nn.RNN), _ROWS),
    "torch lstm, both ways": partial(torch_file, partial(Recurrent, nn.LSTM, bidirectional=True), _ROWS),
    "torch gru, both ways, legacy": partial(
        torch_file, partial(Recurrent, nn.GRU, bidirectional=True), _ROWS, legacy=True
    ),
    "torch rnn, legacy": partial(torch_file, partial(Recurrent, nn.RNN, nonlinearity="relu"), _ROWS, legacy=True),
    "keras cnn": partial(keras_file, keras_cnn),
    "keras cnn, softmax": partial(keras_file, partial(keras_cnn, "softmax"), softmax=True),
    **{f"keras cnn, opset {opset}": partial(keras_file, keras_cnn, opset=opset) for opset in (13, 15, 17, 18)},
    "keras cnn, lifted to 22": partial(keras_file, keras_cnn, opset=22),
    "keras rnn": partial(keras_file, partial(keras_recurrent, "SimpleRNN")),
    "keras lstm": partial(keras_file, _LSTM),
    "keras gru": partial(keras_file, partial(keras_recurrent, "GRU")),
    "keras gru, opset 13": partial(keras_file, partial(keras_recurrent, "GRU", reset_after=False), opset=13),
    "keras rnn, opset 18": partial(keras_file, partial(keras_recurrent, "SimpleRNN", unroll=True), opset=18),
    "keras lstm, opset 17": partial(keras_file, _LSTM, opset=17),
    "keras lstm, both ways": partial(keras_file, keras_bidirectional),
    "keras residual": partial(keras_file, keras_residual),
    "keras attention": partial(keras_file, keras_attention),
    "keras attention, opset 18": partial(keras_file, keras_attention, opset=18),
    "sklearn logistic": partial(sklearn_file, logistic),
    "sklearn perceptron": partial(sklearn_file, perceptron),
    "sklearn scaled perceptron": partial(sklearn_file, partial(scaled, perceptron)),
}
"""name -> files that can be attacked with gradients."""

BLACK_BOXES: dict[str, Callable[[], Source]] = {
    "quantized dynamically": partial(quantised, "dynamic"),
    "quantized, QDQ": partial(quantised, "qdq"),
    "quantized, QOperator": partial(quantised, "qoperator"),
    "sklearn forest": partial(sklearn_file, forest),
}
"""name -> files whose function is a staircase."""
