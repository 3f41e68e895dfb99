"""torchvision's networks in Keras: the same function of the same weights.

torch pads all around, where TensorFlow's "same" pads below and to the right of a stride of 2, so every padding is a
layer of its own; and the batch normalizations have torch's epsilon and, as Keras counts it, torch's momentum. Layers
have the names of torchvision's modules, with ``_`` for ``.``: Keras on torch takes no dot in a name.
Architectures: He et al., "Deep Residual Learning for Image Recognition", 2016, with the stride of a bottleneck in its
3x3 convolution; Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018.
"""

from __future__ import annotations

from typing import Any

from sparring.adapters.frameworks.coexistence import guard
from sparring.models.architectures.twins import MOBILENET_BLOCKS, RESNET_BLOCKS

guard()

import keras  # noqa: E402
from keras import layers  # noqa: E402

LAYOUT = "channels_last"


def resnet18(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, 3) -> (N, classes)."""
    return _resnet("resnet18", input_shape, classes)


def resnet50(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, 3) -> (N, classes)."""
    return _resnet("resnet50", input_shape, classes)


def mobilenet_v2_torchvision(input_shape: tuple[int, int, int], classes: int) -> Any:
    """(N, H, W, 3) -> (N, classes)."""
    inputs = _inputs("mobilenet_v2", input_shape)
    x = _conv_norm(inputs, "features_0_0", "features_0_1", 32, 3, 2, relu="relu6")
    into = 32
    for number, (expansion, out, stride) in enumerate(MOBILENET_BLOCKS, start=1):
        block, parts, shortcut, wide = f"features_{number}", 0, x, into * expansion
        if expansion > 1:
            x = _conv_norm(x, f"{block}_conv_0_0", f"{block}_conv_0_1", wide, relu="relu6")
            parts = 1
        spread = f"{block}_conv_{parts}"
        x = _conv_norm(x, f"{spread}_0", f"{spread}_1", wide, 3, stride, depthwise=True, relu="relu6")
        x = _conv_norm(x, f"{block}_conv_{parts + 1}", f"{block}_conv_{parts + 2}", out)
        x = layers.Add(name=block)([shortcut, x]) if stride == 1 and into == out else x
        into = out
    last = f"features_{len(MOBILENET_BLOCKS) + 1}"
    x = _conv_norm(x, f"{last}_0", f"{last}_1", 1280, relu="relu6")
    x = layers.GlobalAveragePooling2D(data_format=LAYOUT, name="avgpool")(x)
    x = layers.Dropout(0.2, name="classifier_0")(x)
    return keras.Model(inputs, layers.Dense(classes, name="classifier_1")(x))


def _resnet(architecture: str, input_shape: tuple[int, int, int], classes: int) -> Any:
    bottleneck, blocks = RESNET_BLOCKS[architecture]
    inputs = _inputs(architecture, input_shape)
    x = _conv_norm(inputs, "conv1", "bn1", 64, 7, 2, relu="relu")
    # zeros are as good as torch's -inf here: nothing is below them after a ReLU
    x = layers.ZeroPadding2D(1, data_format=LAYOUT, name="maxpool_pad")(x)
    x = layers.MaxPooling2D(3, 2, data_format=LAYOUT, name="maxpool")(x)
    for stage, count in enumerate(blocks):
        for number in range(count):
            name, stride = f"layer{stage + 1}_{number}", 2 if stage and not number else 1
            narrow = 64 * 2**stage
            wide = 4 * narrow if bottleneck else narrow
            shortcut = x
            if stride > 1 or x.shape[-1] != wide:
                shortcut = _conv_norm(x, f"{name}_downsample_0", f"{name}_downsample_1", wide, 1, stride)
            if bottleneck:
                x = _conv_norm(x, f"{name}_conv1", f"{name}_bn1", narrow, relu="relu")
                x = _conv_norm(x, f"{name}_conv2", f"{name}_bn2", narrow, 3, stride, relu="relu")
                x = _conv_norm(x, f"{name}_conv3", f"{name}_bn3", wide)
            else:
                x = _conv_norm(x, f"{name}_conv1", f"{name}_bn1", narrow, 3, stride, relu="relu")
                x = _conv_norm(x, f"{name}_conv2", f"{name}_bn2", wide, 3)
            x = layers.Add(name=f"{name}_add")([x, shortcut])
            x = layers.Activation("relu", name=name)(x)
    x = layers.GlobalAveragePooling2D(data_format=LAYOUT, name="avgpool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="fc")(x))


def _inputs(architecture: str, input_shape: tuple[int, int, int]) -> Any:
    channels, height, width = input_shape
    if channels != 3:
        raise ValueError(f"torchvision's {architecture} takes 3 channels")
    return layers.Input((height, width, channels))


def _conv_norm(
    x: Any, conv: str, norm: str, out: int, size: int = 1, stride: int = 1, *, depthwise: bool = False, relu: str = ""
) -> Any:
    """A convolution without bias, padded as torch pads it, its batch normalization, and an activation if named."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, data_format=LAYOUT, name=f"{conv}_pad")(x)
    common = {"strides": stride, "use_bias": False, "data_format": LAYOUT, "name": conv}
    layer = layers.DepthwiseConv2D(size, **common) if depthwise else layers.Conv2D(out, size, **common)
    x = layers.BatchNormalization(axis=-1, epsilon=1e-5, momentum=0.9, name=norm)(layer(x))
    return layers.Activation(relu, name=f"{norm}_relu")(x) if relu else x
