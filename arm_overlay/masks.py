"""Where an image is tumor: from a mask image, QuPath's GeoJSON or ImageJ's ROIs, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arm_overlay.annotations import GEOJSON_SUFFIXES, ROI_SUFFIXES, TUMOR, read_annotations
from arm_overlay.outline import cells_in, scaled
from arm_overlay.overlay import Region
from lincei.errors import LinceiError
from lincei.image import open_image

OUTLINE_SUFFIXES = (*GEOJSON_SUFFIXES, *ROI_SUFFIXES)
# QuPath's own mark of classes that are not to be measured ends with this.
_IGNORED_MARK = "*"
_WHITE = 128


def mask_of(
    path: str | Path, shape: tuple[int, int], *, factor: float = 1.0, classes: Sequence[str] = ()
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where an image is tumor, and where that is known.

    Parameters
    ----------
    path : str or Path
        A mask image (white is tumor), ``.geojson`` from QuPath, ``.roi`` or ``.zip`` from ImageJ.
    shape : tuple of int
        Height and width of the image.
    factor : float
        Pixels of the image for one of the outline's, where the image is a coarser level of the one that was
        outlined.
    classes : sequence of str
        The QuPath classes that are tumor; ``"Tumor"`` and outlines without a class when empty. Regions of a
        class whose name ends with ``*`` (QuPath's ``Ignore*``) are unknown; what has another class, or lies
        in no outline, is not tumor. ImageJ's ROIs have no class: all are tumor.

    Returns
    -------
    tuple of ndarray
        Shape ``shape``, bool.

    Raises
    ------
    LinceiError
        When the file cannot be read, has another size than the image, is no mask of two values, or has none
        of the classes.
    """
    path = Path(path)
    if not path.name.lower().endswith(OUTLINE_SUFFIXES):
        tumor = _from_image(path, shape, factor)
        return tumor, np.ones(shape, np.bool_)
    found = read_annotations(path)
    tumor, known = np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    by_class = path.name.lower().endswith(GEOJSON_SUFFIXES)
    wanted = {name.casefold() for name in (classes or (TUMOR, ""))}
    marked = [
        (entry.region, not by_class or entry.name.casefold() in wanted, entry.name.endswith(_IGNORED_MARK))
        for entry in found
    ]
    if found and not any(is_tumor or ignored for _, is_tumor, ignored in marked):
        there = ", ".join(sorted({repr(entry.name) for entry in found}))
        raise LinceiError(
            f"none of its outlines has the class {' or '.join(map(repr, classes or (TUMOR,)))}",
            str(path),
            f"There are: {there}. Name those that are tumor with --classes.",
        )
    for region, is_tumor, ignored in marked:
        if ignored:
            known &= ~filled(region, shape, factor)
        elif is_tumor:
            tumor |= filled(region, shape, factor)
    return tumor, known


def filled(region: Region, shape: tuple[int, int], factor: float = 1.0) -> NDArray[np.bool_]:
    """Return the pixels whose centers lie in a region, holes left out; shape ``shape``, bool."""
    return cells_in([region if factor == 1 else scaled(region, factor)], shape, 1.0)


def _from_image(path: Path, shape: tuple[int, int], factor: float) -> NDArray[np.bool_]:
    import cv2

    image = open_image(path)
    height, width = image.shape[3:]
    expected = tuple(round(n / factor) for n in shape)
    if (height, width) not in (shape, expected):
        raise LinceiError(
            f"the mask has {width} x {height} pixels and its image {expected[1]} x {expected[0]}",
            str(path),
            "Give each image the mask that was drawn on it.",
        )
    values = image.read()[0, :, 0].max(axis=0)
    brightest = float(values.max())
    if brightest <= 1:
        tumor = values > 0.5
    elif brightest >= _WHITE:
        # Half of white: a mask that was saved as JPEG is not quite black and white.
        tumor = values > brightest / 2
    else:
        raise LinceiError(
            f"the mask's brightest value is {brightest:g}: it is no mask of two values",
            str(path),
            "Write 255 (or 1) where there is tumor and 0 elsewhere.",
        )
    if (height, width) == shape:
        return np.asarray(tumor, np.bool_)
    smaller = cv2.resize(tumor.astype(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(smaller > 127, np.bool_)
