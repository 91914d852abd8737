"""What napari saves with lincei: an image layer with its pixel size, z step and axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write an image layer as OME-TIFF or OME-Zarr.

    Parameters
    ----------
    path : str
        Ends in ``.ome.tif``, ``.ome.tiff`` or ``.ome.zarr``.
    data : array-like
        The layer's pixels; of a pyramid the finest level first.
    attributes : mapping
        The layer's attributes, as napari hands them over.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    LinceiError
        When it cannot be written, or pixels are not square.
    """
    from napari.layers import Image as ImageLayer

    from lincei.image import save_image
    from napari_plugin.layers import image_of

    known = (
        *("name", "metadata", "scale", "translate", "rotate", "shear", "affine", "units"),
        *("axis_labels", "rgb", "multiscale"),
    )
    layer = ImageLayer(data, **{name: attributes[name] for name in known if name in attributes})
    return [str(save_image(image_of(layer), Path(path)))]
