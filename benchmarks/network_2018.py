"""A stand-in for the labeling network of Christiansen et al., Cell 173:792 (2018), for measuring speed.

It has the published figures: 13 planes of 250x250 pixels in; 8x8 pixels of three labels with 256 bins out;
five scales; 8.2 million parameters. Its list of layers is ours and its weights are random: it predicts
nothing, it only takes the time of a network of that size. The widths are chosen so that it multiplies about
as often as the published layer sizes do (counted from the authors' code at its base depth of 400: 8.16
million parameters, 3.97 billion multiplications a patch). It is kinder to the processor than they are: it has
plain convolutions and ReLU where they have two activations side by side, pooling and sums.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLANES, LABELS, BINS = 13, 3, 256
INPUT_PX, OUTPUT_PX = 250, 8
# What all towers are cropped to before they are joined; seven 3x3 convolutions later 8x8 pixels are left.
_JOINED_PX = 22
_JOINED_WIDTH, _JOINED_CONVOLUTIONS = 128, 7


@dataclass(frozen=True)
class _Tower:
    """One scale: a crop of the input, halved ``scale`` times, convolved, and enlarged again."""

    scale: int
    crop_px: int
    convolutions: int
    width: int


_TOWERS = (
    _Tower(0, 66, 22, 48),
    _Tower(1, 100, 18, 84),
    _Tower(2, 144, 14, 116),
    _Tower(3, 200, 10, 144),
    _Tower(4, 250, 6, 176),
)


@dataclass(frozen=True)
class Size:
    """How large a network is: its parameters, and multiplications for one input."""

    parameters: int
    multiplications: int


def write_network_2018(folder: str) -> Size:
    """Write the network as a model folder, exported to ONNX like every other, and return its size."""
    import keras

    from lincei.keras_network import export_onnx
    from lincei.model import write_model
    from lincei.model_card import Card, Label, Tensor

    keras.utils.set_random_seed(0)
    network = build()
    card = Card(
        name=Path(folder).name,
        task="label",
        description="A stand-in of the size of the 2018 network, with random weights.",
        modality="phase contrast",
        input=Tensor("stack", tuple(f"z{i}" for i in range(PLANES))),
        outputs=(Tensor("probabilities", tuple(f"bin {i}" for i in range(LABELS * BINS))),),
        total_stride=INPUT_PX,  # it takes no other size
        halo_px=(INPUT_PX - OUTPUT_PX) // 2,
        labels=tuple(Label(f"label {i}") for i in range(LABELS)),
        z_planes=PLANES,
    )
    with tempfile.TemporaryDirectory() as scratch:
        onnx = export_onnx(
            network, Path(scratch) / "network.onnx", channels=PLANES, output_names=["probabilities"]
        )
        write_model(folder, card, onnx=onnx)
    return Size(int(network.count_params()), _multiplications(network))


def build() -> Any:
    """Return the network: input (N, 250, 250, 13), output (N, 8, 8, 3 * 256)."""
    import keras
    from keras import layers

    def convolved(x: Any, width: int, kernel: int, strides: int = 1) -> Any:
        return layers.Conv2D(width, kernel, strides, activation="relu")(x)

    def cropped(x: Any, before: int, after: int) -> Any:
        first = (before - after) // 2
        return layers.Cropping2D((first, before - after - first))(x) if before > after else x

    stack = keras.Input((None, None, PLANES), name="stack")
    towers = []
    for tower in _TOWERS:
        x, size = cropped(stack, INPUT_PX, tower.crop_px), tower.crop_px
        for halved in range(tower.scale):
            x, size = convolved(x, max(16, tower.width >> (tower.scale - 1 - halved)), 2, 2), size // 2
        for _ in range(tower.convolutions):
            x, size = convolved(x, tower.width, 3), size - 2
        for _ in range(tower.scale):
            x, size = layers.UpSampling2D(2)(layers.Conv2D(32, 1)(x)), 2 * size
        towers.append(cropped(x, size, _JOINED_PX))
    x = layers.Concatenate()(towers)
    for _ in range(_JOINED_CONVOLUTIONS):
        x = convolved(x, _JOINED_WIDTH, 3)
    bins = [layers.Conv2D(BINS, 1, activation="softmax")(x) for _ in range(LABELS)]
    return keras.Model(stack, layers.Concatenate()(bins), name="network_2018")


def _multiplications(network: Any) -> int:
    """Count those of the convolutions, from the sizes that one patch takes on its way."""
    import keras

    inner = keras.Model(network.inputs, [layer.output for layer in network.layers[1:]])
    shapes = inner.compute_output_shape((1, INPUT_PX, INPUT_PX, PLANES))
    return sum(
        int(shape[1] * shape[2])
        * int(layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2])
        * int(layer.kernel.shape[3])
        for layer, shape in zip(network.layers[1:], shapes, strict=True)
        if isinstance(layer, keras.layers.Conv2D)
    )
