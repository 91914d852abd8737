"""Annotated fields: sections in color, and for each place whether it is tumor and whether that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError

Colors = NDArray[np.uint8]

# Fields are kept no finer than this; the network looks at 1 um and more.
FINEST_UM = 0.5
# Levels of the pyramid that crops are taken from.
_LEVELS = 4


@dataclass(frozen=True, eq=False)
class AnnotatedField:
    """A section in color, with the truth of each pixel.

    Parameters
    ----------
    name : str
        What it is called.
    colors : ndarray
        Shape (Y, X, 3), uint8 display values: glass near 255.
    truth : ndarray
        Shape (Y, X, 2), uint8: tumor (0 or 255), and whether that is known (0 or 255).
    pixel_size_um : float
        Size of a pixel, in um.
    group : str
        Fields of one group (a slide, a patient, a run) are never parted.
    set_name : str
        The set it belongs to.
    share : float
        How often its set is trained on beside one of share 1.
    patch : bool
        Whether it is a patch that is tumor or normal as a whole, and measured as a whole.
    """

    name: str
    colors: Colors
    truth: NDArray[np.uint8]
    pixel_size_um: float
    group: str
    set_name: str = ""
    share: float = 1.0
    patch: bool = False

    @property
    def tumor(self) -> NDArray[np.bool_]:
        """Where it is tumor."""
        return self.truth[..., 0] > 127

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where the truth is known."""
        return self.truth[..., 1] > 127

    def at(self, pixel_size_um: float) -> AnnotatedField:
        """Return the field at another pixel size; nothing is aliased.

        A pixel is tumor (and known) where more than half of it is.
        """
        colors = resized(self.colors, self.pixel_size_um / pixel_size_um)
        truth = resized(self.truth, self.pixel_size_um / pixel_size_um)
        # Sharp borders again: otherwise pixels on them would be neither.
        truth = np.where(truth > 127, np.uint8(255), np.uint8(0))
        return dataclasses.replace(self, colors=colors, truth=truth, pixel_size_um=pixel_size_um)

    @cached_property
    def pyramid(self) -> tuple[AnnotatedField, ...]:
        """The field at ever coarser pixels, each twice as large as the one before."""
        levels = [self]
        while len(levels) < _LEVELS and min(levels[-1].colors.shape[:2]) >= 64:
            levels.append(levels[-1].at(2 * levels[-1].pixel_size_um))
        return tuple(levels)


def annotated_field(
    name: str,
    colors: NDArray[np.generic],
    tumor: NDArray[np.bool_],
    pixel_size_um: float,
    *,
    group: str = "",
    set_name: str = "",
    share: float = 1.0,
    known: NDArray[np.bool_] | None = None,
    edge_um: float = 0.0,
    patch: bool = False,
) -> AnnotatedField:
    """Return a field, resampled to no finer than `FINEST_UM`.

    Parameters
    ----------
    name, group, set_name, share, patch
        As in `AnnotatedField`; a group that is left empty is the field itself.
    colors : ndarray
        Shape (Y, X, 3), uint8.
    tumor : ndarray
        Shape (Y, X), bool.
    pixel_size_um : float
        Pixel size, in um.
    known : ndarray, optional
        Shape (Y, X), bool: where the truth is known; everywhere when left out.
    edge_um : float
        How far the drawn border may be off, to either side; there the truth is unknown.

    Raises
    ------
    LinceiError
        When mask and image differ in size.
    """
    import cv2

    if tumor.shape != colors.shape[:2]:
        raise LinceiError(
            f"the mask has {tumor.shape[1]} x {tumor.shape[0]} pixels and the image "
            f"{colors.shape[1]} x {colors.shape[0]}",
            name,
            "Give each image the mask that was drawn on it.",
        )
    mask = tumor.astype(np.uint8) * 255
    certain = np.full_like(mask, 255) if known is None else known.astype(np.uint8) * 255
    reach = round(edge_um / pixel_size_um)
    if reach:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        certain[cv2.erode(mask, kernel) != cv2.dilate(mask, kernel)] = 0
    field = AnnotatedField(
        name,
        np.ascontiguousarray(colors, np.uint8),
        np.stack([mask, certain], axis=-1),
        pixel_size_um,
        group or name,
        set_name,
        share,
        patch,
    )
    return field.at(FINEST_UM) if pixel_size_um < 0.98 * FINEST_UM else field


def resized(array: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Enlarge or reduce an image of shape (Y, X, ...); reducing averages the pixels that fall together."""
    import cv2

    height, width = (max(1, round(n * factor)) for n in array.shape[:2])
    if (height, width) == array.shape[:2]:
        return array
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (width, height), interpolation=method), np.uint8)


def mosaic_of(patches: Sequence[AnnotatedField], columns: int) -> AnnotatedField:
    """Put patches of one pixel size side by side, as one field, row by row.

    What is known of a tumor patch is its middle; of a normal patch all of it.
    """
    side = min(min(patch.colors.shape[:2]) for patch in patches)
    middle = slice(side // 4, side - side // 4)
    rows = []
    for first in range(0, len(patches) - columns + 1, columns):
        row = []
        for patch in patches[first : first + columns]:
            colors, truth = patch.colors[:side, :side], patch.truth[:side, :side].copy()
            if truth[..., 0].any():
                truth[..., 1] = 0
                truth[middle, middle, 1] = 255
            row.append((colors, truth))
        rows.append([np.concatenate(parts, axis=1) for parts in zip(*row, strict=True)])
    colors, truth = (np.concatenate(parts, axis=0) for parts in zip(*rows, strict=True))
    return dataclasses.replace(patches[0], name="patches", colors=colors, truth=truth, patch=False)
