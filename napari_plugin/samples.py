"""Sample data: real images where they are on this computer, simulated ones otherwise."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from lincei.errors import LinceiWarning

if TYPE_CHECKING:
    from pathlib import Path

    from napari_plugin.readers import LayerData

# Seeds that no shipped model learned from.
_SEED = 1000
_LEVEL_STEP = 2
_DRAWN_PIXEL_UM = 1.0


def motor_neurons() -> list[LayerData]:
    """Return human motor neurons in phase contrast (13 planes) with their stains, or simulated cells.

    Returns
    -------
    list of layer data
        The stack, and the stains DAPI, MAP2 and NFH, hidden at first.
    """
    from insilico.training import label_color
    from lincei.image import open_image
    from lincei.pattern import find_inputs
    from napari_plugin.readers import image_layers

    folder = _folder("isl_motor_neurons", "simulated cells")
    if folder is None:
        return simulated_cells()
    (group,) = find_inputs([str(folder / "phase_z{z}.tif")])
    layers = image_layers(group.open(modality="phase contrast"), "motor neurons phase contrast")
    for name in ("DAPI", "MAP2", "NFH"):
        stain = open_image(folder / f"{name.lower()}_confocal_maxproj.tif", modality="fluorescence")
        layers += image_layers(stain, f"motor neurons true {name}", **_stained(label_color(name)))
    return layers


def focus_series() -> list[LayerData]:
    """Return a z-stack of fluorescent beads, or of simulated nuclei that are more blurred to both ends.

    Returns
    -------
    list of layer data
        One stack.
    """
    import numpy as np

    from lincei.image import Image
    from lincei.pattern import find_inputs
    from napari_plugin.readers import image_layers

    folder = _folder("beads_zstack", "simulated nuclei")
    if folder is not None:
        (group,) = find_inputs([str(folder / "E07_s1_w1_step??_Z{z}um.tif")])
        return image_layers(group.open(modality="fluorescence", z_step_um=5.0), "beads focus series")
    from focusqc.defocusing import defocused
    from sample_data.cells import simulate_cells

    sharp = simulate_cells(_SEED, labels=("nuclei",), planes=1).labels["nuclei"]
    light = sharp.read()[0, 0, 0].astype(np.float32)
    planes = [defocused(light, abs(_LEVEL_STEP * step)) for step in range(-4, 5)]
    stack = np.clip(np.rint(planes), 0, 65535).astype(np.uint16)
    image = Image.from_array(
        stack, "ZYX", pixel_size_um=sharp.pixel_size_um, z_step_um=2.0 * _LEVEL_STEP, modality="fluorescence"
    )
    return image_layers(image, "simulated focus series")


def tissue() -> list[LayerData]:
    """Return a field of breast tissue, stained with hematoxylin and eosin, or a part of a drawn slide.

    Returns
    -------
    list of layer data
        A color image, and where tumor is by the judgment of pathologists, hidden at first.
    """
    from lincei.image import open_image
    from napari_plugin.readers import image_layers

    folder = _folder("he_breast_40x", "a drawn slide")
    if folder is None:
        return drawn_slide()
    image = open_image(folder / "images" / "1008.jpg", pixel_size_um=0.25, modality="H&E")
    mask = open_image(folder / "masks" / "1008.png").read()
    tumor = mask[0].max(axis=(0, 1)) > 127
    return [*image_layers(image, "breast tissue"), _marked(tumor, "breast tissue true tumor", 0.25)]


def simulated_cells() -> list[LayerData]:
    """Return simulated cells in phase contrast, with their stains.

    Returns
    -------
    list of layer data
        The stack, and each stain, hidden at first.
    """
    from napari_plugin.readers import image_layers
    from sample_data.cells import LABELS, simulate_cells

    field = simulate_cells(_SEED)
    layers = image_layers(field.stack, "simulated cells phase contrast")
    for name, stain in field.labels.items():
        image = stain.with_(modality="fluorescence")
        layers += image_layers(image, f"simulated cells true {name}", **_stained(LABELS[name]))
    return layers


def drawn_slide() -> list[LayerData]:
    """Return a part of a drawn slide of stained tissue at 10x.

    Returns
    -------
    list of layer data
        A color image, and where tumor was drawn, hidden at first.
    """
    from lincei.image import Image
    from napari_plugin.readers import image_layers
    from sample_data.slides import open_slide

    part = open_slide("drawn").read(2000, 1200, (1200, 900), _DRAWN_PIXEL_UM)
    image = Image.from_array(part.rgb, "YXS", pixel_size_um=_DRAWN_PIXEL_UM, modality="H&E")
    return [
        *image_layers(image, "drawn slide"),
        _marked(part.tumor, "drawn slide true tumor", _DRAWN_PIXEL_UM),
    ]


def _folder(name: str, stand_in: str) -> Path | None:
    """Return the folder of a set that is on this computer; say so where it is not."""
    from sample_data.registry import dataset, locate

    # Nothing is downloaded here: the window would stand still meanwhile.
    folder = locate(name, download=False)
    if folder is None:
        warnings.warn(
            f"{stand_in[0].upper()}{stand_in[1:]} stand in for real images, which are not on this computer: "
            f"{dataset(name).title}. `lincei demo` downloads what can be; LINCEI_DATA may name a folder with "
            "the data.",
            LinceiWarning,
            stacklevel=2,
        )
    return folder


def _stained(color: str) -> dict[str, Any]:
    return {"colormap": color, "blending": "additive", "visible": False}


def _marked(mask: Any, name: str, pixel_size_um: float) -> LayerData:
    keywords = {
        "name": name,
        "scale": [pixel_size_um] * 2,
        "units": ["micrometer"] * 2,
        "axis_labels": ["y", "x"],
        "opacity": 0.4,
        "visible": False,
    }
    return mask.astype("uint8"), keywords, "labels"
