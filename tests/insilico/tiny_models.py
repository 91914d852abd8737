"""Labeling models small enough to be made in a test, and stacks to try them on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lincei.image import Image
from lincei.model import Model, write_model

LABELS = {"DAPI": "#0000FF", "MAP2": "#00FF00"}


@dataclass(frozen=True)
class TinyModels:
    """Models with random weights, all of one folder.

    Parameters
    ----------
    folder : Path
        For LINCEI_MODELS.
    three, one : Model
        With three planes and with one, of unknown scale.
    scaled : Model
        ``three`` with a pixel size of 0.5 um and a z step of 2 um.
    bright_field : Model
        ``three`` for another modality.
    """

    folder: Path
    three: Model
    one: Model
    scaled: Model
    bright_field: Model


def write_tiny(folder: Path, planes: int, seed: int = 7) -> Model:
    """Write a complete model with random weights, whose predictions vary by about 1 over an image."""
    import keras

    from insilico.model_folder import write_labeling_model
    from insilico.network import NetworkConfig, build_trunk
    from insilico.options import TrainOptions

    keras.utils.set_random_seed(seed)
    config = NetworkConfig(labels=2, planes=planes, width=8, scales=2, dropout=0.0)
    trunk = build_trunk(config)
    # As it starts, a trunk predicts next to nothing and the same distribution everywhere.
    for name, factor in (("mean", 8.0), ("shape", 3.0)):
        kernel, bias = trunk.get_layer(name).get_weights()
        trunk.get_layer(name).set_weights([factor * kernel, bias])
    row = {"pearson_r": 0.5, "nrmse": 0.9, "ssim": 0.4, "crps": 0.1, "coverage_90": 0.9}
    return write_labeling_model(
        folder,
        trunk,
        config,
        labels=LABELS,
        options=TrainOptions(),
        figures={"test": dict.fromkeys(LABELS, row), "split": "none", "epochs": 0, "minutes": 0.0},
        modalities=("phase contrast",),
        pixel_size_um=None,
        z_step_um=None,
        training={"fields": 0, "steps": 0, "backend": "tensorflow", "precision": "float32", "command": ""},
    )


def variant(model: Model, folder: Path, **changes: Any) -> Model:
    """Write a model again with another card; the name is the folder's."""
    card = dataclasses.replace(model.card, name=folder.name, files={}, onnx_file=None, **changes)
    return write_model(
        folder,
        card,
        onnx=model.onnx_path.read_bytes(),
        test_input=model.test_input(),
        test_outputs=model.test_outputs(),
    )


def stack(planes: int = 3, height: int = 70, width: int = 90, seed: int = 0) -> NDArray[np.float64]:
    """Return a stack (Z, Y, X) of soft texture around 0, with standard deviation 1."""
    from scipy import ndimage

    random = np.random.default_rng(seed)
    soft = [ndimage.gaussian_filter(random.normal(size=(height, width)), 1.5) for _ in range(2)]
    slope = np.linspace(-1, 1, planes) if planes > 1 else np.zeros(1)
    pixels = np.stack([soft[0] + 0.2 * position * soft[1] for position in slope])
    return pixels / pixels.std()


def gray(pixels: NDArray[np.float64], dtype: str = "uint16", **fields: Any) -> Image:
    """Return a stack (Z, Y, X) as an image whose gray values fill a part of the type's range."""
    zero, unit = {"uint8": (120, 20), "uint16": (20_000, 4000), "float32": (0.5, 0.125)}[dtype]
    values = zero + unit * pixels
    return Image.from_array(values.astype(dtype), axes="ZYX", **fields)
