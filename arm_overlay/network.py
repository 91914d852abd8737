"""The network that finds tumor: a small fully convolutional encoder, a decoder at a stride of 8 pixels.

The encoder is the first half of EfficientNet-Lite0 (no squeeze-and-excitation, ReLU6), to a stride of 16. It
has no batch normalization: that of its start weights is folded into the convolutions, and nothing in it looks
at the whole tile, so that tiles join without a seam.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lincei.errors import LinceiError

if TYPE_CHECKING:
    import keras

NETWORK_BUILDERS = ("build_network",)

# Colors come as display values; the start weights expect (x - 127) / 128.
INPUT_MEAN, INPUT_SCALE = 127.0, 128.0
OUTPUT_STRIDE = 8
TOTAL_STRIDE = 16


@dataclass(frozen=True)
class Block:
    """An inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection.

    Parameters
    ----------
    kernel, stride : int
        Of the depthwise convolution.
    expansion : int
        How many times as many features it has as the block's input; 1 leaves the first convolution out.
    features : int
        Of the projection.
    """

    kernel: int
    stride: int
    expansion: int
    features: int


# Tan & Le, EfficientNet, ICML 2019, table 1; Lite0 keeps the features of B0 and leaves out squeeze-and-
# excitation. Blocks 8 to 15 are not used: they look far, and learn the layout of few slides by heart.
STEM_FEATURES = 32
ENCODER_BLOCKS = (
    Block(3, 1, 1, 16),
    Block(3, 2, 6, 24),
    Block(3, 1, 6, 24),
    Block(5, 2, 6, 40),
    Block(5, 1, 6, 40),
    Block(3, 2, 6, 80),
    Block(3, 1, 6, 80),
    Block(3, 1, 6, 80),
)
# The blocks whose outputs the decoder sees besides the last one's, and by how much these are averaged to a
# stride of 8: outlines follow fine detail.
_FINE_BLOCKS: Mapping[int, int] = {0: 4, 2: 2, 4: 1}


@dataclass(frozen=True)
class TumorNetworkConfig:
    """The size of the network and the recalibration of its probabilities.

    Parameters
    ----------
    expansion_share : float
        Share of the features before the blocks' projections that are kept.
    width : int
        Features of the decoder.
    sharpening, offset : float
        The probability is sigmoid(``sharpening`` * logit + ``offset``).
    """

    expansion_share: float = 0.5
    width: int = 64
    sharpening: float = 1.0
    offset: float = 0.0

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> TumorNetworkConfig:
        """Check and read a stored configuration.

        Raises
        ------
        LinceiError
            When it is not one of this network.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(config) != names:
            raise LinceiError(f"the network's configuration has {sorted(config)}, not {sorted(names)}")
        share, width = config["expansion_share"], config["width"]
        sharpening, offset = config["sharpening"], config["offset"]
        if not (
            isinstance(share, (int, float))
            and 0.1 <= share <= 1
            and isinstance(width, int)
            and 4 <= width <= 256
            and isinstance(sharpening, (int, float))
            and 0.01 <= sharpening <= 100
            and isinstance(offset, (int, float))
            and abs(offset) <= 100
        ):
            raise LinceiError(f"the network's configuration {dict(config)} is out of range")
        return cls(float(share), width, float(sharpening), float(offset))

    def to_json(self) -> dict[str, Any]:
        """Return the configuration, JSON-able."""
        return dataclasses.asdict(self)

    @property
    def halo_px(self) -> int:
        """Pixels at a tile's border whose output depends on what lies outside; a multiple of the stride."""
        reach, stride = 1, 2  # of the stem: one pixel to either side
        for block in ENCODER_BLOCKS:
            reach += (block.kernel - 1) // 2 * stride
            stride *= block.stride
        # Two depthwise convolutions of the decoder, and the cells that upsampling and cropping make alike.
        reach += 2 * OUTPUT_STRIDE + TOTAL_STRIDE
        return -(-reach // TOTAL_STRIDE) * TOTAL_STRIDE


def expanded_features(block: Block, features: int, share: float) -> int:
    """Return the features between a block's expansion and its projection: a multiple of 8.

    The first block has no expansion: these are the stem's.
    """
    return max(8, 8 * round(share * block.expansion * features / 8))


def build_network(config: Mapping[str, Any]) -> keras.Model:
    """Build the network as it serves: colors in, probabilities out.

    Parameters
    ----------
    config : mapping
        What `TumorNetworkConfig.to_json` gives.

    Returns
    -------
    keras.Model
        From (N, Y, X, 3) display values, 0 to 255, to (N, Y/8, X/8, 1) probabilities, float32.
    """
    import keras

    settings = TumorNetworkConfig.from_json(config)
    colors, logits = _layers(settings)
    scaled = logits * settings.sharpening + settings.offset
    probability = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(scaled)
    return keras.Model(colors, probability, name="tumor")


def build_trainer(config: TumorNetworkConfig) -> keras.Model:
    """Build the network as it is trained: colors in, logits out; its weights fit `build_network`."""
    import keras

    colors, logits = _layers(config)
    return keras.Model(colors, logits, name="tumor_trainer")


def _layers(config: TumorNetworkConfig) -> tuple[Any, Any]:
    """Return input and logits."""
    import keras
    from keras import layers

    def convolved(
        x: Any, features: int, name: str, kernel: int = 1, stride: int = 1, relu: bool = True
    ) -> Any:
        x = layers.Conv2D(
            features, kernel, stride, padding="same", kernel_initializer="he_normal", name=name
        )(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x

    def depthwise(x: Any, kernel: int, name: str, stride: int = 1) -> Any:
        x = layers.DepthwiseConv2D(
            kernel, stride, padding="same", depthwise_initializer="he_normal", name=name
        )(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x)

    colors = keras.Input((None, None, 3), dtype="float32", name="field")
    x = layers.Rescaling(1 / INPUT_SCALE, -INPUT_MEAN / INPUT_SCALE, name="normalized")(colors)
    stem = expanded_features(ENCODER_BLOCKS[0], STEM_FEATURES, config.expansion_share)
    x = convolved(x, stem, "stem", kernel=3, stride=2)
    fine = []
    for number, block in enumerate(ENCODER_BLOCKS):
        before, name = x, f"block_{number}"
        if block.expansion > 1:
            x = convolved(
                x, expanded_features(block, x.shape[-1], config.expansion_share), f"{name}_expansion"
            )
        x = depthwise(x, block.kernel, f"{name}_depthwise", block.stride)
        x = convolved(x, block.features, f"{name}_projection", relu=False)
        if block.stride == 1 and before.shape[-1] == block.features:
            x = layers.Add(name=f"{name}_sum")([before, x])
        if number in _FINE_BLOCKS:
            size = _FINE_BLOCKS[number]
            fine.append(layers.AveragePooling2D(size, name=f"{name}_averaged")(x) if size > 1 else x)
    x = convolved(x, config.width, "decoder_coarse", relu=False)
    x = layers.UpSampling2D(2, interpolation="nearest", name="decoder_enlarged")(x)
    detail = convolved(layers.Concatenate(name="detail")(fine), config.width, "decoder_fine", relu=False)
    x = layers.Add(name="decoder_sum")([x, detail])
    x = layers.ReLU(6.0, name="decoder_relu")(x)
    for number in range(2):
        x = depthwise(x, 3, f"decoder_depthwise_{number}")
        x = convolved(x, config.width, f"decoder_mixed_{number}")
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)
    return colors, logits
