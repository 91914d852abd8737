"""Batches of crops from annotated fields, at many scales and as many laboratories would have made them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.annotated import AnnotatedField, mosaic_of
from arm_overlay.augmentation import USUAL, AugmentationRange, photographed, restained, with_glass
from arm_overlay.network import OUTPUT_STRIDE

Array = NDArray[np.float32]

# How many patches are put side by side along each side of a crop's source.
_MOSAIC = 5
# Cells of the coarse maps from which centers of crops are drawn.
_CELL_PX = 32


@dataclass(frozen=True)
class CropRange:
    """The crops that are drawn.

    Parameters
    ----------
    crop_px : int
        Side of a crop, in pixels.
    pixel_sizes_um : tuple of float
        Smallest, most frequent and largest pixel size, in um; their logarithms are distributed in a triangle.
    tumor_share : float
        Share of the crops that have tumor at their center, where the field has some.
    """

    crop_px: int = 192
    pixel_sizes_um: tuple[float, float, float] = (0.8, 1.2, 3.7)
    tumor_share: float = 0.5


def crop_maker(
    fields: Sequence[AnnotatedField],
    crops: CropRange,
    *,
    batch: int,
    augmentation: AugmentationRange = USUAL,
) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    """Return a function that makes a batch from a random generator.

    Sets count by their shares, whatever their size; within a set every field of a group counts by its area.

    Parameters
    ----------
    fields : sequence of AnnotatedField
        What to learn from.
    crops : CropRange
        Size and scale.
    batch : int
        Crops in a batch.
    augmentation : AugmentationRange
        How much stain and camera are varied.

    Returns
    -------
    callable
        Returns colors, float32 (batch, crop, crop, 3), 0 to 255, and truth, float32 (batch, crop/8, crop/8,
        2): share of tumor in each cell, and how much of the cell is known.
    """
    names = list(dict.fromkeys(field.set_name for field in fields))
    by_set = [[field for field in fields if field.set_name == name] for name in names]
    shares = np.array([members[0].share for members in by_set])
    places = {id(field): _centers(field) for field in fields if not field.patch}

    def one(random: np.random.Generator) -> tuple[Array, Array]:
        members = by_set[random.choice(len(by_set), p=shares / shares.sum())]
        pixel_size_um = float(np.exp(random.triangular(*np.log(crops.pixel_sizes_um))))
        wanted = random.random() < crops.tumor_share
        if members[0].patch:
            field, center = _mosaic(members, wanted, random), None
        else:
            areas = np.array([field.truth[..., 0].size * field.pixel_size_um**2 for field in members])
            field = members[random.choice(len(members), p=areas / areas.sum())]
            choices = places[id(field)][int(wanted)]
            if not len(choices):
                choices = places[id(field)][int(not wanted)]
            center = choices[random.integers(len(choices))] + random.uniform(-0.5, 0.5, 2) * _CELL_PX
        colors, truth = _warped(field, center, crops.crop_px, pixel_size_um, random)
        changed, truth = with_glass(restained(colors, random, augmentation), truth, random, augmentation)
        return photographed(changed, pixel_size_um, random, augmentation), _cells(truth)

    def make(random: np.random.Generator) -> tuple[Array, Array]:
        made = [one(random) for _ in range(batch)]
        return np.stack([colors for colors, _ in made]), np.stack([truth for _, truth in made])

    return make


def _centers(field: AnnotatedField) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return places (Y, X in pixels) of known cells: mostly not tumor, and mostly tumor."""
    height, width = (max(1, -(-n // _CELL_PX)) for n in field.truth.shape[:2])
    tumor = np.zeros((height, width))
    known = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            cell = field.truth[y * _CELL_PX : (y + 1) * _CELL_PX, x * _CELL_PX : (x + 1) * _CELL_PX]
            tumor[y, x], known[y, x] = cell.mean(axis=(0, 1)) / 255
    usable = known > 0.25
    middle = 0.5 * _CELL_PX
    normal, with_tumor = (
        np.argwhere(usable & chosen) * float(_CELL_PX) + middle for chosen in (tumor <= 0.5, tumor > 0.5)
    )
    return normal, with_tumor


def _mosaic(members: Sequence[AnnotatedField], tumor: bool, random: np.random.Generator) -> AnnotatedField:
    """Return a field made of patches of one group that are all tumor, or all normal."""
    alike = [field for field in members if field.tumor.any() == tumor] or list(members)
    groups = sorted({field.group for field in alike})
    group = groups[random.integers(len(groups))]
    alike = [field for field in alike if field.group == group]
    chosen = random.permutation(np.resize(np.arange(len(alike)), _MOSAIC**2))
    return mosaic_of([alike[i] for i in chosen], _MOSAIC)


def _warped(
    field: AnnotatedField,
    center: NDArray[np.floating[Any]] | None,
    crop_px: int,
    pixel_size_um: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], Array]:
    """Return a crop, turned and mirrored at random; beyond the field's borders it is mirrored.

    Its scale differs a little along the two axes, as tissue is stretched on the slide.
    """
    import cv2

    # From the coarsest level that is not coarser than the crop, so that nothing is aliased.
    level = next(
        (entry for entry in reversed(field.pyramid) if entry.pixel_size_um <= 1.2 * pixel_size_um), field
    )
    if center is None:
        middle = np.array(level.colors.shape[:2]) / 2
        center = middle + random.uniform(-0.5, 0.5, 2) * np.maximum(
            0, 2 * middle - crop_px * pixel_size_um / level.pixel_size_um
        )
    else:
        center = center * (field.pixel_size_um / level.pixel_size_um)
    angle = random.uniform(0, 2 * np.pi)
    stretch = np.exp(random.uniform(-0.08, 0.08))
    step = pixel_size_um / level.pixel_size_um
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([step * stretch * random.choice((-1, 1)), step / stretch])
    offset = center[::-1] - matrix @ np.full(2, (crop_px - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warp = np.column_stack([matrix, offset])
    colors, truth = (
        cv2.warpAffine(array, warp, (crop_px, crop_px), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        for array in (level.colors, level.truth)
    )
    return np.asarray(colors, np.uint8), np.asarray(truth, np.float32) / np.float32(255)


def _cells(truth: Array) -> Array:
    """Return share of tumor and what is known of each cell of the network's output."""
    size = truth.shape[0] // OUTPUT_STRIDE
    blocks = truth.reshape(size, OUTPUT_STRIDE, size, OUTPUT_STRIDE, 2)
    known = blocks[..., 1].mean(axis=(1, 3))
    tumor = (blocks[..., 0] * blocks[..., 1]).mean(axis=(1, 3)) / np.maximum(known, 1e-6)
    return np.stack([tumor, known], axis=-1).astype(np.float32)
