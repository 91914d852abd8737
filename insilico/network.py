"""The labeling network: a multi-scale, fully convolutional map from z planes to a distribution per pixel.

Like the network of Christiansen et al. (Cell 173:792, 2018) it is made of in-scale, down-scale and up-scale
blocks, but it predicts densely instead of in 8x8 patches. Its first layer maps all z planes to features of
2x2 pixels; stacks with other numbers of planes are brought to the network's planes first (see
`insilico.z_planes.plane_weights`). Nothing in it looks at a whole tile, so that tiles join without seams.

Written on `keras.ops`: it trains with TensorFlow, JAX or PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from insilico.distribution import DISCRETE_STEP, LOG_SCALE_RANGE

# What a model's network.json may name.
NETWORK_BUILDERS = ("build_network",)

BATCH_NORM_MOMENTUM = 0.95


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is built from; stored with a model as ``network.json``.

    Parameters
    ----------
    labels : int
        Number of labels predicted.
    planes : int
        Number of z planes the first layer takes.
    width : int
        Features at the finest scale; coarser scales have more.
    scales : int
        Number of scales: 3 means features of 2, 4 and 8 pixels.
    components : int
        Logistic components of each pixel's distribution.
    dropout : float
        Share of feature maps dropped while training.
    spread : tuple of float
        One factor per label that recalibrates the width of the distributions.
    """

    labels: int
    planes: int = 13
    width: int = 32
    scales: int = 4
    components: int = 3
    dropout: float = 0.2
    spread: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", tuple(map(float, self.spread)) or (1.0,) * self.labels)
        if len(self.spread) != self.labels:
            raise ValueError(f"{len(self.spread)} spread factors for {self.labels} labels")

    @property
    def total_stride(self) -> int:
        """Tiles' origins and sizes are multiples of this many pixels."""
        return int(2**self.scales)

    @property
    def reach_px(self) -> int:
        """How far, at most, an input pixel is from an output pixel that it influences."""
        reach = 3  # the stem's 4x4 window around a feature of 2x2 pixels, and the place within it
        for scale in range(1, self.scales):
            reach += 2 * 2**scale + 2**scale  # one residual block, and the step down
        reach += 2 * 2**self.scales  # the coarsest residual block
        for scale in range(1, self.scales):
            reach += 3 * 2**scale + 2**scale  # after each step up: a convolution and a residual block
        return reach + 2 + 1  # the last convolution, and the smoothing

    @property
    def halo_px(self) -> int:
        """`reach_px` rounded up to a multiple of the total stride."""
        return -(-self.reach_px // self.total_stride) * self.total_stride

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dict."""
        return {**dataclasses.asdict(self), "spread": list(self.spread)}


def build_network(config: Mapping[str, Any]) -> keras.Model:
    """Rebuild the network that serves, as stored in a model's ``network.json``.

    Returns
    -------
    keras.Model
        Input ``stack`` (N, Y, X, planes), float32, scaled. Outputs, all float32: ``mean`` and ``sd``
        (N, Y, X, labels) and ``parameters`` (N, Y, X, labels * 3 * components); per label these are the
        components' weights (they add up to 1), locations and scales, in this order. The trained part is
        the layer ``trunk``. (The exported network has channels first.)
    """
    fields = {field.name for field in dataclasses.fields(NetworkConfig)}
    settings = NetworkConfig(**{name: value for name, value in config.items() if name in fields})
    return serving_network(build_trunk(settings), settings)


def build_trunk(config: NetworkConfig, *, dtype: str = "float32") -> keras.Model:
    """Build the part that is trained.

    Parameters
    ----------
    config : NetworkConfig
        Its size.
    dtype : {"float32", "mixed_bfloat16"}
        Arithmetic while training; the weights are float32 with either.

    Returns
    -------
    keras.Model
        Input (N, Y, X, planes). Outputs ``mean`` (N, Y, X, labels) and ``shape``
        (N, Y/2, X/2, labels * 3 * components): logits, offsets and log scales of the components. The shape
        of a distribution varies slowly, so one for 2x2 pixels does.
    """
    block = _Blocks(dtype)
    stack = keras.Input((None, None, config.planes), name="stack")
    widths = [min(config.width + i * config.width // 2, config.width * 5 // 2) for i in range(config.scales)]
    x = block.convolution(stack, widths[0], kernel=4, strides=2)
    skips = []
    for width in widths[:-1]:
        x = block.residual(x, width)
        skips.append(x)
        x = block.down(x, widths[len(skips)])
    x = block.residual(x, widths[-1])
    x = block.dropout(x, 2 * config.dropout)
    for skip in reversed(skips):
        width = int(skip.shape[-1])
        x = block.up(x, width)
        x = layers.Concatenate(dtype=dtype)([x, skip])
        x = block.dropout(x, config.dropout)
        x = block.convolution(x, width)
        x = block.residual(x, width)
    features = block.convolution(x, config.width)
    mean = layers.Conv2DTranspose(config.labels, 2, strides=2, dtype="float32", name="mean")(features)
    mean = _Smooth(config.labels)(mean)
    # The likelihood teaches this head alone: led on into the trunk, it made training unstable.
    shape = layers.Conv2D(
        config.labels * 3 * config.components,
        1,
        dtype="float32",
        bias_initializer=_shape_start(config),
        name="shape",
    )(ops.stop_gradient(features))
    return keras.Model(stack, {"mean": mean, "shape": shape}, name="trunk")


def serving_network(trunk: keras.Model, config: NetworkConfig) -> keras.Model:
    """Wrap a trained trunk: distribution recalibrated and spelled out per pixel."""
    stack = keras.Input((None, None, config.planes), name="stack")
    outputs = trunk(stack)
    weights, offsets, scales = _Unpack(config.labels, config.components, config.spread)(outputs["shape"])
    sd = layers.UpSampling2D(2, interpolation="nearest")(_MixtureSd()([weights, offsets, scales]))
    full = [
        layers.UpSampling2D(2, interpolation="nearest")(_Flat(config.labels * config.components)(part))
        for part in (weights, offsets, scales)
    ]
    parameters = _Parameters(config.labels, config.components)([outputs["mean"], *full])
    return keras.Model(stack, {"mean": outputs["mean"], "sd": sd, "parameters": parameters}, name="labeling")


def distribution_of(shape: Any, labels: int, components: int) -> tuple[Any, Any, Any]:
    """Return log weights, offsets and log scales from the trunk's ``shape`` output.

    Each is (N, Y/2, X/2, labels, components). The weighted offsets of a pixel add up to 0, so that the
    distribution's mean is the ``mean`` output exactly.
    """
    n, y, x = ops.shape(shape)[:3]
    parts = ops.reshape(shape, (n, y, x, labels, 3, components))
    log_weights = ops.log_softmax(parts[..., 0, :], axis=-1)
    offsets = parts[..., 1, :]
    offsets = offsets - ops.sum(ops.exp(log_weights) * offsets, axis=-1, keepdims=True)
    return log_weights, offsets, ops.clip(parts[..., 2, :], *LOG_SCALE_RANGE)


def mixture_nll(residual: Any, shape: Any, components: int) -> Any:
    """Negative log likelihood of residuals (truth - mean), in nats above a uniform density of 1.

    Parameters
    ----------
    residual : tensor
        (N, Y/2, X/2, labels).
    shape : tensor
        The trunk's ``shape`` output.
    components : int
        Components per label.

    Returns
    -------
    tensor
        (N, Y/2, X/2, labels).

    Notes
    -----
    Discretized logistic mixture, after Salimans et al., PixelCNN++ (ICLR 2017), eq. 2, without its edge
    cases: the scale of a label has no ends. The probability of a bin of width h around e is
    sigmoid((e + h/2)/s) - sigmoid((e - h/2)/s), written such that nothing cancels.
    """
    log_weights, offsets, log_scales = distribution_of(shape, residual.shape[-1], components)
    inverse = ops.exp(-log_scales)
    error = ops.expand_dims(residual, -1) - offsets
    upper, lower = (error + DISCRETE_STEP / 2) * inverse, (error - DISCRETE_STEP / 2) * inverse
    width = ops.log(-ops.expm1(-ops.minimum(DISCRETE_STEP * inverse, 50.0)))
    log_bin = -ops.softplus(-upper) - ops.softplus(lower) + width
    return -ops.logsumexp(log_weights + log_bin, axis=-1) + np.log(DISCRETE_STEP)


class _Blocks:
    """Layers of one arithmetic; each batch norm keeps fixed statistics when the network serves."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def norm(self, x: Any) -> Any:
        return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, dtype=self.dtype)(x)

    def relu(self, x: Any) -> Any:
        return layers.Activation("relu", dtype=self.dtype)(x)

    def dropout(self, x: Any, rate: float) -> Any:
        return layers.SpatialDropout2D(rate, dtype=self.dtype)(x) if rate > 0 else x

    def convolution(self, x: Any, width: int, *, kernel: int = 3, strides: int = 1) -> Any:
        x = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, dtype=self.dtype)(x)
        return self.relu(self.norm(x))

    def residual(self, x: Any, width: int) -> Any:
        """In-scale block: two convolutions beside an identity."""
        y = self.convolution(x, width)
        y = self.norm(layers.Conv2D(width, 3, padding="same", use_bias=False, dtype=self.dtype)(y))
        return self.relu(layers.Add(dtype=self.dtype)([x, y]))

    def down(self, x: Any, width: int) -> Any:
        """Down-scale block: half the resolution."""
        return self.convolution(x, width, kernel=2, strides=2)

    def up(self, x: Any, width: int) -> Any:
        """Up-scale block: twice the resolution."""
        x = layers.Conv2D(width, 1, dtype=self.dtype)(x)
        return layers.UpSampling2D(2, interpolation="nearest", dtype=self.dtype)(x)


def _shape_start(config: NetworkConfig) -> Any:
    """Return an initializer: components of different widths, spread a little to the bright side."""
    start = np.zeros((config.labels, 3, config.components), np.float32)
    start[:, 0] = np.linspace(0.0, -2.0, config.components)
    start[:, 1] = np.linspace(-0.03, 0.3, config.components)
    start[:, 2] = np.log(np.linspace(0.03, 0.2, config.components))

    def initializer(shape: Sequence[int], dtype: Any = None) -> Any:
        return ops.cast(ops.convert_to_tensor(start.reshape(shape)), dtype or "float32")

    return initializer


class _Smooth(layers.Layer):  # type: ignore[misc]
    """Binomial smoothing, 3x3: what the four pixels of a feature get differently leaves no lattice."""

    def __init__(self, labels: int) -> None:
        super().__init__(dtype="float32")
        binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
        self.kernel = np.repeat(binomial[..., None, None], labels, axis=2).astype(np.float32)

    def call(self, mean: Any) -> Any:
        return ops.depthwise_conv(mean, self.kernel, padding="same")


class _Unpack(layers.Layer):  # type: ignore[misc]
    """Split the ``shape`` output into weights, offsets and scales, and apply the recalibration."""

    def __init__(self, labels: int, components: int, spread: Sequence[float]) -> None:
        super().__init__(dtype="float32")
        self.labels, self.components = labels, components
        self.spread = np.asarray(spread, np.float32)[:, None]

    def call(self, shape: Any) -> tuple[Any, Any, Any]:
        log_weights, offsets, log_scales = distribution_of(shape, self.labels, self.components)
        return ops.exp(log_weights), offsets * self.spread, ops.exp(log_scales) * self.spread


class _MixtureSd(layers.Layer):  # type: ignore[misc]
    """Standard deviation; the variance of a logistic of scale s is (pi s)^2 / 3."""

    def call(self, parts: Sequence[Any]) -> Any:
        weights, offsets, scales = parts
        variance = ops.sum(weights * (ops.square(offsets) + ops.square(scales) * (np.pi**2 / 3)), axis=-1)
        return ops.sqrt(variance)


class _Flat(layers.Layer):  # type: ignore[misc]
    """Join the label and component axes."""

    def __init__(self, size: int) -> None:
        super().__init__(dtype="float32")
        self.size = size

    def call(self, x: Any) -> Any:
        n, y, width = ops.shape(x)[:3]
        return ops.reshape(x, (n, y, width, self.size))


class _Parameters(layers.Layer):  # type: ignore[misc]
    """Weights, locations and scales per label, side by side as channels."""

    def __init__(self, labels: int, components: int) -> None:
        super().__init__(dtype="float32")
        self.labels, self.components = labels, components

    def call(self, parts: Sequence[Any]) -> Any:
        mean, *rest = parts
        n, y, x = ops.shape(mean)[:3]
        weights, offsets, scales = (
            ops.reshape(part, (n, y, x, self.labels, 1, self.components)) for part in rest
        )
        locations = ops.reshape(mean, (n, y, x, self.labels, 1, 1)) + offsets
        joined = ops.concatenate([weights, locations, scales], axis=-2)
        return ops.reshape(joined, (n, y, x, self.labels * 3 * self.components))
