"""The network that rates a patch: strided convolutions, pooled to one distribution over the levels.

A patch comes in raw gray values. Its mean is subtracted and it is divided by its standard deviation inside
the network, so that camera gain and offset cannot matter; a constant patch becomes zeros, but for rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from focusqc.levels import LEVELS
from focusqc.patches import PATCH_PX
from lincei.errors import LinceiError

if TYPE_CHECKING:
    import keras

NETWORK_BUILDERS = ("build_network",)


@dataclass(frozen=True)
class FocusNetworkConfig:
    """The size of the network.

    Parameters
    ----------
    width : int
        Features of the first layer; later ones have two and four times as many.
    dropout : float
        Share of pooled features dropped while training.
    sharpening : float
        Factor of the logits, from recalibration.
    """

    width: int = 16
    dropout: float = 0.1
    sharpening: float = 1.0

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> FocusNetworkConfig:
        """Check and read a stored configuration.

        Raises
        ------
        LinceiError
            When it is not one of this network.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if set(config) != names:
            raise LinceiError(f"the network's configuration has {sorted(config)}, not {sorted(names)}")
        width, dropout, sharpening = config["width"], config["dropout"], config["sharpening"]
        if not (
            isinstance(width, int)
            and 4 <= width <= 64
            and isinstance(dropout, (int, float))
            and 0 <= dropout < 1
            and isinstance(sharpening, (int, float))
            and 0.01 <= sharpening <= 100
        ):
            raise LinceiError(f"the network's configuration {dict(config)} is out of range")
        return cls(width, float(dropout), float(sharpening))

    def to_json(self) -> dict[str, Any]:
        """Return the configuration, JSON-able."""
        return dataclasses.asdict(self)


def build_network(config: Mapping[str, Any]) -> keras.Model:
    """Build the network as it serves: patches in, probabilities out.

    Parameters
    ----------
    config : mapping
        What `FocusNetworkConfig.to_json` gives.

    Returns
    -------
    keras.Model
        From (N, 84, 84, 1) gray values to (N, 11) probabilities, float32.
    """
    import keras

    settings = FocusNetworkConfig.from_json(config)
    patches, logits = _layers(settings)
    scaled = logits * settings.sharpening
    probabilities = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(scaled)
    return keras.Model(patches, probabilities, name="focus")


def build_trainer(config: FocusNetworkConfig) -> keras.Model:
    """Build the network as it is trained: patches in, logits out; its weights fit `build_network`."""
    import keras

    patches, logits = _layers(config)
    return keras.Model(patches, logits, name="focus_trainer")


def _layers(config: FocusNetworkConfig) -> tuple[Any, Any]:
    """Return input and logits."""
    import keras
    from keras import layers, ops

    def convolved(
        x: Any, features: int, name: str, *, kernel: int = 3, strides: int = 1, normed: bool = False
    ) -> Any:
        x = layers.Conv2D(
            features,
            kernel,
            strides,
            padding="same",
            use_bias=not normed,
            kernel_initializer="he_normal",
            name=f"{name}_convolution",
        )(x)
        if normed:
            x = layers.BatchNormalization(momentum=0.98, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    width = config.width
    patches = keras.Input((PATCH_PX, PATCH_PX, 1), dtype="float32", name="patches")
    mean = ops.mean(patches, axis=(1, 2), keepdims=True)
    x = patches - mean
    variance = ops.mean(x * x, axis=(1, 2), keepdims=True)
    # Below a millionth of the brightness there is rounding and no image.
    x = x * (1 / ops.sqrt(variance + 1e-12 * mean * mean + 1e-30))
    # A logarithm in three straight pieces: roots and divisions of every pixel would take much of the time.
    x = 0.7 * ops.clip(x, -2, 2) + 0.25 * ops.clip(x, -8, 8) + 0.05 * ops.clip(x, -40, 40)
    # Sides of 28, 14 and 7: no step leaves pixels over.
    x = convolved(x, width, "fine", kernel=6, strides=3)
    x = convolved(x, 2 * width, "medium_down", strides=2)
    x = convolved(x, 2 * width, "medium")
    # Batch normalization on the small layers alone: on the large ones it would cost many of the steps that
    # a given time allows.
    x = convolved(x, 4 * width, "coarse_down", strides=2, normed=True)
    x = convolved(x, 4 * width, "coarse", normed=True)
    side = x.shape[1]
    # Pooling layers of the whole side, since engines run these several times faster than a mean over axes.
    pooled = layers.Concatenate(name="pooled")(
        [
            layers.Flatten(name=f"pooled_{kind.__name__}")(kind(side, name=kind.__name__)(x))
            for kind in (layers.AveragePooling2D, layers.MaxPooling2D)
        ]
    )
    pooled = layers.Dropout(config.dropout, name="dropout")(pooled)
    hidden = layers.Dense(64, activation="relu", name="hidden")(pooled)
    logits = layers.Dense(LEVELS, dtype="float32", name="logits")(hidden)
    return patches, logits
