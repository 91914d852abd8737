"""Tissue is told from glass by its color, on a coarse copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.tissue import Tissue, find_tissue
from lincei.errors import CancelledError
from lincei.image import Image, open_image

CELL_PX = 8
GLASS, PALE_PINK, PURPLE = (243, 242, 244), (238, 214, 230), (120, 60, 140)


def section(height: int, width: int, glass: tuple[int, int, int] = GLASS, noise: float = 3) -> NDArray[Any]:
    """Return glass with a camera's noise, shape (Y, X, 3)."""
    random = np.random.default_rng(0)
    return np.clip(random.normal(glass, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def found(colors: NDArray[Any], **fields: Any) -> Tissue:
    image = Image.from_array(colors, "YXS", **fields)
    cells = (colors.shape[0] // CELL_PX, colors.shape[1] // CELL_PX)
    assert image.intensity_range is not None
    return find_tissue(image, 1 / CELL_PX, cells, image.intensity_range[1])


@pytest.mark.parametrize("color", [PALE_PINK, PURPLE, (190, 188, 189), (60, 60, 60)])
def test_stained_and_dark_places_are_tissue_and_glass_is_not(color: tuple[int, int, int]) -> None:
    colors = section(160, 240)
    colors[40:80, 80:160] = color
    tissue = found(colors)
    assert tissue.cells[6:9, 11:19].all()
    away = np.ones((20, 30), bool)
    away[3:12, 8:22] = False  # cells beside it see something of it
    assert not (tissue.cells & away).any()
    assert tissue.brightest == pytest.approx(243, abs=3)
    assert not tissue.constant


def test_what_a_scanner_left_out_in_black_is_no_tissue() -> None:
    colors = section(160, 240)
    for edge_px in (124, 123, 120):  # where glass meets black, cells are gray
        colors[:, edge_px:] = 0
        assert not found(colors).cells.any()
    colors[40:80, 40:120] = PURPLE
    tissue = found(colors)
    assert tissue.cells[6:9, 6:14].all()
    assert tissue.unlit[:, 16:].all()
    assert not tissue.widened(4)[:, 16:].any()


def test_a_field_full_of_tissue_is_tissue_throughout() -> None:
    assert found(section(160, 240, PALE_PINK, noise=12)).cells.all()


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 100, 150)])
def test_one_color_everywhere_is_said_and_is_no_tissue(color: tuple[int, int, int]) -> None:
    tissue = found(np.full((160, 240, 3), color, np.uint8))
    assert tissue.constant
    assert not tissue.cells.any()


def test_sixteen_bits_are_judged_as_eight_are() -> None:
    colors = section(160, 240)
    colors[40:80, 80:160] = PALE_PINK
    np.testing.assert_array_equal(found(colors.astype(np.uint16) * 257).cells, found(colors).cells)
    twelve_bits = (colors.astype(np.float64) * (4095 / 255)).round().astype(np.uint16)
    np.testing.assert_array_equal(
        found(twelve_bits, intensity_range=(0.0, 4095.0)).cells, found(colors).cells
    )


def test_widened_cells_reach_as_far_as_asked() -> None:
    cells = np.zeros((9, 12), bool)
    cells[4, 5] = True
    widened = Tissue(cells, np.zeros_like(cells), 240.0, False).widened(2)
    expected = np.zeros((9, 12), bool)
    expected[2:7, 3:8] = True
    np.testing.assert_array_equal(widened, expected)
    unlit = np.zeros_like(cells)
    unlit[:, 7:] = True
    assert not Tissue(cells, unlit, 240.0, False).widened(2)[:, 7:].any()


class _Untouched:
    """Pixels that must not be read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.uint8)

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("the finest level was read")


def test_of_a_pyramid_a_level_is_read_that_still_shows_the_cells() -> None:
    coarse = section(40, 60)
    coarse[10:20, 20:40] = PURPLE
    level = Image.from_array(coarse, "YXS")
    too_coarse = Image.from_array(section(5, 8), "YXS")
    image = Image(_Untouched((1, 3, 1, 160, 240)), rgb=True, levels=(level, too_coarse))
    tissue = find_tissue(image, 1 / CELL_PX, (20, 30), 255)
    np.testing.assert_array_equal(
        tissue.cells[1:-1, 1:-1], found(coarse.repeat(4, 0).repeat(4, 1)).cells[1:-1, 1:-1]
    )


def test_reading_in_bands_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    colors = section(160, 240)
    colors[30:90, 70:150] = PALE_PINK
    whole = found(colors).cells
    monkeypatch.setattr("arm_overlay.tissue._READ_AT_ONCE_PX", 240 * CELL_PX * 3)
    np.testing.assert_array_equal(found(colors).cells, whole)


def test_it_stops_when_asked() -> None:
    image = Image.from_array(section(160, 240), "YXS")
    with pytest.raises(CancelledError):
        find_tissue(image, 1 / CELL_PX, (20, 30), 255, cancelled=lambda: True)


@pytest.mark.parametrize("gains", [(1.0, 1.0, 0.9), (1.0, 0.9, 0.8), (0.85, 0.93, 1.0)])
def test_glass_of_real_sections_that_is_tinted_is_no_tissue(
    real_data: Path, gains: tuple[float, float, float]
) -> None:
    """Lamps and cameras that are not balanced make everything yellow, orange or blue."""
    with_glass = 0
    for path in sorted((real_data / "he_oral_20x" / "images").iterdir()):
        image = open_image(path)
        colors = np.moveaxis(image.read()[0, :, 0], 0, -1)
        cells = (colors.shape[0] // 16, colors.shape[1] // 16)
        balanced = find_tissue(image, 1 / 16, cells, 255)
        assert not balanced.tinted
        if balanced.cells.mean() > 0.95:
            continue
        with_glass += 1
        tinted = Image.from_array(np.rint(colors * gains).astype(np.uint8), "YXS")
        found_tinted = find_tissue(tinted, 1 / 16, cells, 255)
        assert found_tinted.tinted
        assert found_tinted.cells.mean() == pytest.approx(balanced.cells.mean(), abs=0.02)
    assert with_glass >= 3


@pytest.mark.parametrize("folder", ["he_lymph_node_10x", "he_oral_20x"])
def test_hardly_any_tumor_of_real_sections_is_taken_for_glass(real_data: Path, folder: str) -> None:
    pixel = {"he_lymph_node_10x": 1.0, "he_oral_20x": 0.5}[folder]
    cell = round(CELL_PX / pixel)
    tumor = missed = 0
    for path in sorted((real_data / folder / "images").iterdir())[::4]:
        image = open_image(path)
        mask = open_image(next((real_data / folder / "masks").glob(f"{path.stem}.*"))).read()[0, 0, 0]
        rows, columns = mask.shape[0] // cell, mask.shape[1] // cell
        cells = mask[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell) > 127
        inside = cells.mean(axis=(1, 3)) > 0.5
        around = find_tissue(image, 1 / cell, (rows, columns), 255).widened(4)
        tumor += int(inside.sum())
        missed += int((inside & ~around).sum())
    assert tumor > 1000
    assert missed == 0
