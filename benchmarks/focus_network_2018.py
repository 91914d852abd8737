"""A stand-in for the focus network of Yang et al., BMC Bioinformatics 19:77 (2018), for measuring speed.

It has the published architecture: 84x84 pixels in, two convolutions of 5x5 with 32 and 64 features, each with
ReLU and max pooling by two, a dense layer of 1024, and the 11 levels out; about 29 million parameters. Its
weights are random: it rates nothing, it only takes the time and memory of that network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

LEVELS = 11
INPUT_PX = 84


def build() -> Any:
    """Return the network: input (N, 84, 84, 1), output (N, 11)."""
    import keras
    from keras import layers

    patches = keras.Input((INPUT_PX, INPUT_PX, 1), name="patches")
    x = patches
    for features in (32, 64):
        x = layers.Conv2D(features, 5, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(1024, activation="relu")(layers.Flatten()(x))
    return keras.Model(patches, layers.Dense(LEVELS, activation="softmax")(x), name="focus_network_2018")


def write_focus_network_2018(folder: str) -> int:
    """Write the network as a model folder, exported to ONNX like every other, and return its parameters."""
    import keras

    from lincei.keras_network import export_onnx
    from lincei.model import write_model
    from lincei.model_card import Card, Tensor

    keras.utils.set_random_seed(0)
    network = build()
    card = Card(
        name=Path(folder).name,
        task="focus",
        description="A stand-in with the architecture of the 2018 network and random weights.",
        modality="fluorescence",
        input=Tensor("patches", ("gray",)),
        outputs=(Tensor("probabilities", tuple(f"level {k}" for k in range(LEVELS)), downsampling=None),),
        total_stride=INPUT_PX,  # it takes no other size
        halo_px=0,
    )
    with tempfile.TemporaryDirectory() as scratch:
        onnx = export_onnx(
            _of_fixed_size(network),
            Path(scratch) / "network.onnx",
            channels=1,
            output_names=["probabilities"],
            input_name="patches",
        )
        write_model(folder, card, onnx=onnx)
    return int(network.count_params())


def _of_fixed_size(network: Any) -> Any:
    """Return the network as a function that takes patches of a size that the exporter leaves open."""

    def rated(patches: Any, training: bool = False) -> Any:
        from keras import ops

        return network(ops.reshape(patches, (-1, INPUT_PX, INPUT_PX, 1)), training=training)

    return rated
