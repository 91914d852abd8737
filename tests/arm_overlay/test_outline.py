"""Outlines from heat maps: exact places, areas and diameters of known shapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.outline import cells_in, points_of, region_of, regions_of, scaled
from arm_overlay.overlay import Region
from lincei.errors import UsageError

CELL_PX = 8.0
SIZE_PX = (640, 480)
CELLS = (60, 80)


def covered(
    inside: Callable[[Any, Any], Any],
    cells: tuple[int, int] = CELLS,
    cell_px: float = CELL_PX,
    samples: int = 8,
) -> NDArray[np.float32]:
    """Return how much of each cell lies inside a shape that is given by pixel coordinates x and y."""
    y, x = ((np.arange(count * samples) + 0.5) * (cell_px / samples) - 0.5 for count in cells)
    fine = np.broadcast_to(inside(x[None, :], y[:, None]), (cells[0] * samples, cells[1] * samples))
    means: NDArray[np.float32] = (
        fine.reshape(cells[0], samples, cells[1], samples).mean(axis=(1, 3)).astype(np.float32)
    )
    return means


def disk(x0: float, y0: float, radius: float) -> Callable[[Any, Any], Any]:
    return lambda x, y: np.hypot(x - x0, y - y0) < radius


def outlined(heat: NDArray[Any], threshold: float = 0.5, **options: Any) -> tuple[Region, ...]:
    return regions_of(heat, threshold, **{"cell_px": CELL_PX, "size_px": SIZE_PX, **options})


@pytest.mark.parametrize("radius", [25.0, 40.0, 100.0, 190.0])
def test_outline_of_a_disk_is_off_by_less_than_an_eighth_of_a_cell(radius: float) -> None:
    (region,) = outlined(covered(disk(301.3, 210.7, radius)))
    distances = np.hypot(*(region.exterior - (301.3, 210.7)).T)
    assert np.abs(distances - radius).max() < CELL_PX / 8
    assert region.area_px == pytest.approx(math.pi * radius**2, rel=0.03)
    assert region.diameter_px == pytest.approx(2 * radius, rel=0.01)
    assert not region.holes


def test_no_disk_shrinks_by_smoothing() -> None:
    heat = covered(disk(320, 240, 50))
    for _ in range(3):  # the outline of an outline
        (region,) = outlined(heat)
        assert region.area_px == pytest.approx(math.pi * 50**2, rel=0.03)
        heat = covered_by(region)


def covered_by(region: Region) -> NDArray[np.float32]:
    inside = cells_in([region], (CELLS[0] * 8, CELLS[1] * 8), CELL_PX / 8)
    means: NDArray[np.float32] = inside.reshape(CELLS[0], 8, CELLS[1], 8).mean(axis=(1, 3)).astype(np.float32)
    return means


def test_the_hole_of_a_ring_belongs_to_its_region() -> None:
    ring = covered(lambda x, y: np.abs(np.hypot(x - 301.3, y - 210.7) - 100) < 40)
    (region,) = outlined(ring)
    (hole,) = region.holes
    assert np.abs(np.hypot(*(hole - (301.3, 210.7)).T) - 60).max() < CELL_PX / 8
    assert region.area_px == pytest.approx(math.pi * (140**2 - 60**2), rel=0.01)
    assert region.diameter_px == pytest.approx(280, rel=0.01)


def test_a_region_in_a_hole_is_a_region_of_its_own() -> None:
    heat = np.maximum(
        covered(lambda x, y: np.abs(np.hypot(x - 320, y - 240) - 150) < 40), covered(disk(320, 240, 50))
    )
    outer, inner = outlined(heat)
    assert (len(outer.holes), len(inner.holes)) == (1, 0)
    assert inner.diameter_px == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("edge_px", [200.0, 201.7, 203.5, 206.9])
def test_a_half_plane_is_closed_along_the_border_of_the_frame(edge_px: float) -> None:
    (region,) = outlined(covered(lambda x, y: (x < edge_px) & (y > -9)))
    x, y = region.exterior.T
    assert (x.min(), y.min(), y.max()) == (-0.5, -0.5, SIZE_PX[1] - 0.5)
    assert x.max() == pytest.approx(edge_px, abs=CELL_PX / 8)
    # No corner off the straight edge, which has them only at the far border.
    assert np.isin(x, (-0.5, x.max())).sum() + np.isin(y, (-0.5, 479.5)).sum() >= len(x)
    assert region.area_px == pytest.approx((edge_px + 0.5) * SIZE_PX[1], rel=0.005)


def test_a_map_that_is_tumor_all_over_is_outlined_along_the_frame() -> None:
    (region,) = outlined(np.full(CELLS, 0.9))
    assert region.area_px == pytest.approx(640 * 480)
    assert region.diameter_px == pytest.approx(math.hypot(640, 480), rel=4e-4)
    assert region.score == pytest.approx(0.9)


def test_a_map_larger_than_the_frame_is_cut_off_and_a_smaller_one_goes_on() -> None:
    heat = np.ones(CELLS)
    for size_px in ((600, 470), (700, 500)):
        (region,) = outlined(heat, size_px=size_px)
        assert region.area_px == pytest.approx(size_px[0] * size_px[1])


def test_a_hole_at_the_border_is_no_hole() -> None:
    heat = 1 - covered(disk(-0.5, 240, 100))
    (region,) = outlined(heat)
    assert not region.holes
    assert region.area_px == pytest.approx(640 * 480 - math.pi * 100**2 / 2, rel=0.002)


def test_a_frame_at_another_scale_has_the_same_outline_at_its_scale() -> None:
    heat = covered(disk(301.3, 210.7, 90))
    (region,) = outlined(heat)
    (finer,) = outlined(heat, cell_px=2.5 * CELL_PX, size_px=(1600, 1200))
    moved = scaled(region, 2.5)
    np.testing.assert_allclose(finer.exterior, moved.exterior, atol=1e-3)
    assert finer.area_px == pytest.approx(moved.area_px, rel=1e-4)
    assert finer.diameter_px == pytest.approx(moved.diameter_px, rel=1e-4)


def test_small_regions_are_left_out_and_small_holes_filled() -> None:
    heat = covered(disk(200, 240, 120)) - covered(disk(200, 240, 20)) + covered(disk(500, 240, 24))
    big, small = outlined(heat)
    assert (len(big.holes), len(small.holes)) == (1, 0)
    (filled,) = outlined(heat, smallest_px=60)
    assert not filled.holes
    assert filled.area_px == pytest.approx(math.pi * 120**2, rel=0.02)


def test_a_region_cut_by_the_border_counts_with_what_is_in_the_frame() -> None:
    heat = covered(disk(-20, 240, 80))
    chord_px = 2 * math.sqrt(80**2 - 19.5**2)
    # What the outermost cells see goes on from their centers: half a cell off along the border.
    (region,) = outlined(heat, smallest_px=chord_px - CELL_PX)
    assert region.diameter_px == pytest.approx(chord_px, abs=CELL_PX)
    assert not outlined(heat, smallest_px=chord_px + 1)


def test_hysteresis_keeps_regions_with_a_sure_place_in_full() -> None:
    sure = 0.6 * covered(disk(200, 240, 90)) + 0.35 * covered(disk(200, 240, 40))
    heat = sure + 0.6 * covered(disk(460, 240, 80))
    left, right = outlined(heat)
    (kept,) = outlined(heat, high=0.9)
    assert kept.exterior[:, 0].max() < 320
    np.testing.assert_array_equal(kept.exterior, left.exterior)
    assert right.exterior[:, 0].min() > 320
    assert not outlined(heat, high=0.97)


def test_a_sure_place_in_a_hole_does_not_keep_the_region_around_it() -> None:
    heat = 0.6 * covered(lambda x, y: np.abs(np.hypot(x - 320, y - 240) - 150) < 40)
    heat += 0.95 * covered(disk(320, 240, 50))
    (kept,) = outlined(heat, high=0.9)
    assert kept.diameter_px == pytest.approx(100, rel=0.05)


def test_score_is_the_mean_over_the_cells_of_a_region_without_its_holes() -> None:
    random = np.random.default_rng(3)
    heat = covered(lambda x, y: np.abs(np.hypot(x - 320, y - 240) - 150) < 60) * random.uniform(0.6, 1, CELLS)
    (region,) = outlined(heat, 0.4)
    inside = cells_in([region], CELLS, CELL_PX)
    assert region.score == pytest.approx(heat[inside].mean())
    assert inside.sum() * CELL_PX**2 == pytest.approx(region.area_px, rel=0.01)


def test_bytes_are_outlined_as_probabilities() -> None:
    heat = covered(disk(301.3, 210.7, 90))
    (exact,) = outlined(heat)
    (coarse,) = outlined(np.round(heat * 255).astype(np.uint8))
    assert coarse.area_px == pytest.approx(exact.area_px, rel=0.002)
    assert coarse.score == pytest.approx(exact.score, rel=0.005)


def test_largest_region_comes_first() -> None:
    heat = covered(disk(100, 100, 30)) + covered(disk(300, 300, 90)) + covered(disk(550, 100, 60))
    areas = [region.area_px for region in outlined(heat)]
    assert areas == sorted(areas, reverse=True)
    assert len(areas) == 3


@pytest.mark.parametrize("heat", [np.zeros(CELLS), np.full(CELLS, 0.49), np.zeros((0, 4)), np.zeros((1, 1))])
def test_nothing_above_the_threshold_gives_no_region(heat: NDArray[Any]) -> None:
    assert outlined(heat) == ()


@pytest.mark.parametrize("cells", [(1, 1), (1, 9), (2, 3)])
def test_maps_of_few_cells_are_outlined(cells: tuple[int, int]) -> None:
    size_px = (int(cells[1] * CELL_PX), int(cells[0] * CELL_PX))
    (region,) = outlined(np.ones(cells), size_px=size_px)
    assert region.area_px == pytest.approx(size_px[0] * size_px[1])


def test_a_stack_is_no_heat_map() -> None:
    with pytest.raises(UsageError, match="2 axes, not 3"):
        outlined(np.zeros((1, 60, 80)))


def test_largest_diameter_is_that_of_all_pairs_of_points() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        ring = random.normal(size=(30, 2)) * random.uniform(1, 50, 2)
        exact = max(math.dist(a, b) for a, b in itertools.combinations(ring, 2))
        assert region_of(ring).diameter_px == pytest.approx(exact, rel=4e-4)


def test_area_far_from_the_origin_is_exact() -> None:
    square = np.array([[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]]) + 90_000
    assert region_of(square).area_px == 0.25


def test_cells_are_those_whose_centers_lie_in_the_region() -> None:
    square = np.array([[7.9, 7.9], [23.6, 7.9], [23.6, 15.6], [7.9, 15.6]])
    hole = np.array([[15.6, 7.95], [23.5, 7.95], [23.5, 15.5], [15.6, 15.5]])
    inside = cells_in([region_of(square, [hole])], (4, 5), CELL_PX)
    assert np.argwhere(inside).tolist() == [[1, 1]]
    assert not cells_in([], (4, 5), CELL_PX).any()


def test_points_are_the_peaks_above_the_threshold() -> None:
    heat = np.zeros((12, 20), np.float32)
    heat[3, 4], heat[3, 5], heat[4, 5] = 0.9, 0.6, 0.5  # one peak with a slope
    heat[8, 10] = heat[8, 11] = 0.8  # a flat one
    heat[0, 19] = 0.7  # in the corner
    heat[10, 2] = 0.4  # too low
    found = points_of(heat, 0.5, cell_px=CELL_PX)
    cells = np.array([[19, 0], [4, 3], [10.5, 8]])
    np.testing.assert_allclose(found, (cells + 0.5) * CELL_PX - 0.5)
    as_bytes = points_of(np.round(heat * 255).astype(np.uint8), 0.5, cell_px=CELL_PX)
    np.testing.assert_array_equal(as_bytes, found)


def test_no_peaks_give_no_points() -> None:
    assert points_of(np.zeros(CELLS), 0.5, cell_px=CELL_PX).shape == (0, 2)
