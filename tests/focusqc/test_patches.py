"""Where patches lie, and that they are the pixels of the image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from focusqc.patches import PATCH_PX, PatchGrid, padded, patch_grid, patch_pixels
from lincei.errors import UsageError

SIZES = st.integers(1, 700)


def covered(height: int, width: int, grid: PatchGrid) -> np.ndarray:
    """Return how many patches every pixel lies in."""
    count = np.zeros((height, width), int)
    for y, x in itertools.product(grid.y, grid.x):
        count[y : y + PATCH_PX, x : x + PATCH_PX] += 1
    return count


class TestSideBySide:
    @settings(deadline=None)
    @given(height=SIZES, width=SIZES)
    def test_every_pixel_lies_in_a_patch_and_no_patch_outside(self, height: int, width: int):
        grid = patch_grid(height, width)
        assert (covered(height, width, grid) > 0).all()
        for starts, size in ((grid.y, height), (grid.x, width)):
            assert starts[0] == 0
            assert len(set(starts)) == len(starts) == max(1, -(-size // PATCH_PX))
            if size >= PATCH_PX:
                assert starts[-1] == size - PATCH_PX
            # All but the last lie on the grid of 84 pixels.
            assert starts[:-1] == tuple(range(0, PATCH_PX * (len(starts) - 1), PATCH_PX))
        assert grid.padded == (min(height, width) < PATCH_PX)

    def test_whole_multiples_are_covered_once(self):
        grid = patch_grid(168, 252)
        assert (grid.y, grid.x) == ((0, 84), (0, 84, 168))
        assert (covered(168, 252, grid) == 1).all()

    def test_a_field_of_520_by_696_has_7_by_9_patches(self):
        grid = patch_grid(520, 696)
        assert grid.y == (0, 84, 168, 252, 336, 420, 436)
        assert grid.x == (0, 84, 168, 252, 336, 420, 504, 588, 612)
        assert len(grid) == 63


class TestTileCount:
    @pytest.mark.parametrize(
        ("size", "count", "expected"),
        [
            # 84 i + (i + 1) (S - 84 n) / (n + 1), worked out by hand.
            (500, 1, (208,)),
            (501, 1, (208,)),  # 417 / 2 = 208.5
            (512, 2, (114, 313)),  # spare 344: 114.67, 84 + 229.33
            (512, 4, (35, 154, 273, 392)),  # spare 176: 35.2, 84 + 70.4, 168 + 105.6, 252 + 140.8
            (520, 6, (2, 88, 174, 261, 347, 433)),  # spare 16: 2.29, 4.57, 6.86, 9.14, 11.43, 13.71
            (252, 3, (0, 84, 168)),
        ],
    )
    def test_tiles_lie_where_the_imagej_plugin_puts_them(
        self, size: int, count: int, expected: tuple[int, ...]
    ):
        grid = patch_grid(size, 900, (1, count))
        assert grid.y == expected
        assert grid.x == (408,)
        assert patch_grid(900, size, (count, 1)).x == expected

    @pytest.mark.parametrize(
        ("size", "count", "expected"),
        [
            # The quotient is cut toward zero; what then lies outside is moved to the edge.
            (330, 4, (0, 82, 165, 246)),  # spare -6: -1.2, 84 - 2.4, 168 - 3.6, 252 - 4.8 beyond 246
            (250, 3, (0, 83, 166)),  # spare -2: -0.5, 84 - 1, 168 - 1.5 beyond 166
            (100, 2, (0, 16)),  # spare -68: -22.7, 84 - 45.3 beyond 16
        ],
    )
    def test_tiles_that_do_not_fit_side_by_side_overlap(
        self, size: int, count: int, expected: tuple[int, ...]
    ):
        assert patch_grid(size, 84, (1, count)).y == expected

    @settings(deadline=None)
    @given(height=SIZES, width=SIZES, nx=st.integers(1, 40), ny=st.integers(1, 40))
    def test_as_many_tiles_as_asked_for_lie_in_the_image(self, height: int, width: int, nx: int, ny: int):
        assume(ny <= max(1, height - 83) and nx <= max(1, width - 83))
        grid = patch_grid(height, width, (nx, ny))
        assert (len(grid.y), len(grid.x)) == (ny, nx)
        for starts, size in ((grid.y, height), (grid.x, width)):
            assert list(starts) == sorted(starts)
            assert starts[0] >= 0
            assert starts[-1] <= max(0, size - PATCH_PX)

    @settings(deadline=None)
    @given(size=SIZES, count=st.integers(1, 9))
    def test_spare_pixels_are_shared_by_the_gaps(self, size: int, count: int):
        assume(size >= PATCH_PX * count)
        starts = patch_grid(size, 84, (1, count)).y
        edges = [0, *(start + PATCH_PX for start in starts)]
        gaps = [start - edge for start, edge in zip([*starts, size], edges, strict=True)]
        assert min(gaps) >= 0
        assert max(gaps) - min(gaps) <= 1

    @pytest.mark.parametrize("tile_count", [(0, 3), (3, -1), (3,), (1, 2, 3)])
    def test_what_is_no_count_is_refused(self, tile_count: tuple[int, ...]):
        with pytest.raises(UsageError, match="--tile-count is " + ",".join(map(str, tile_count))):
            patch_grid(500, 500, tile_count)

    def test_more_tiles_than_there_are_places_are_refused_with_the_axis(self):
        assert len(patch_grid(100, 90, (7, 17))) == 7 * 17
        with pytest.raises(UsageError, match="18 patches along y"):
            patch_grid(100, 90, (1, 18))
        with pytest.raises(UsageError, match="8 patches along x"):
            patch_grid(100, 90, (8, 1))
        with pytest.raises(UsageError, match="2 patches along x"):
            patch_grid(100, 50, (2, 1))


class TestPixels:
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
    def test_patches_are_the_pixels_of_the_image_as_they_are(self, dtype: str):
        plane = np.random.default_rng(0).integers(0, 250, (200, 300)).astype(dtype)
        grid = patch_grid(200, 300)
        found = patch_pixels(plane, grid, 0, len(grid))
        assert found.shape == (len(grid), 1, PATCH_PX, PATCH_PX)
        assert found.dtype == np.float32
        for patch, (y, x) in zip(found, itertools.product(grid.y, grid.x), strict=True):
            np.testing.assert_array_equal(patch[0], plane[y : y + PATCH_PX, x : x + PATCH_PX])

    def test_a_part_of_the_patches_is_that_part_of_all(self):
        plane = np.arange(300 * 260, dtype=np.uint32).reshape(300, 260)
        grid = patch_grid(300, 260, (3, 4))
        whole = patch_pixels(plane, grid, 0, 12)
        parts = [patch_pixels(plane, grid, first, last) for first, last in ((0, 5), (5, 10), (10, 12))]
        np.testing.assert_array_equal(np.concatenate(parts), whole)

    @pytest.mark.parametrize("shape", [(1, 1), (30, 200), (200, 30), (83, 83), (10, 84)])
    def test_a_small_image_is_mirrored_at_its_lower_and_right_edges(self, shape: tuple[int, int]):
        plane = np.random.default_rng(0).random(shape).astype(np.float32)
        grid = patch_grid(*shape)
        assert grid.padded
        patches = patch_pixels(plane, grid, 0, len(grid))
        height, width = shape
        part = plane[: min(height, PATCH_PX), : min(width, PATCH_PX)]
        np.testing.assert_array_equal(patches[0, 0, : part.shape[0], : part.shape[1]], part)
        # The period of a mirrored image is twice its size.
        y, x = (np.arange(PATCH_PX) % (2 * n) for n in shape)
        y, x = np.where(y < height, y, 2 * height - 1 - y), np.where(x < width, x, 2 * width - 1 - x)
        np.testing.assert_array_equal(patches[0, 0], plane[np.ix_(y, x)])

    def test_what_is_large_enough_is_not_padded(self):
        plane = np.arange(90 * 84.0).reshape(90, 84)
        np.testing.assert_array_equal(padded(plane), plane)
        assert not patch_grid(90, 84).padded
