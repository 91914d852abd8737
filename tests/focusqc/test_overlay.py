"""The picture of a rating: colors, borders, the key, the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3
import numpy as np
import pytest
from made_ratings import made_plane, made_rating
from skimage.color import deltaE_ciede2000, rgb2lab

from focusqc.overlay import (
    key_rgb,
    level_color,
    level_colors,
    overlay_rgb,
    plane_pixels,
    write_overlay,
)
from focusqc.patches import PATCH_PX
from lincei.errors import LinceiError
from lincei.image import Image, open_image

SURE, UNSURE = 0.2, 100.0


def lab_of(colors: Any) -> Any:
    return rgb2lab(np.asarray(colors, np.uint8)[None])[0]


def pixels_of_color(picture: Any, color: tuple[int, int, int]) -> Any:
    return (picture == np.array(color, np.uint8)).all(axis=2)


def test_hues_run_from_red_over_green_to_blue_and_neighbors_differ_alike() -> None:
    lab = lab_of(level_colors(range(11), 1.0))
    hues = np.rad2deg(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    assert (np.diff(hues) > 0).all()
    red, green, blue = level_color(0, 1), level_color(5, 1), level_color(10, 1)
    assert [np.argmax(color) for color in (red, green, blue)] == [0, 1, 2]
    steps = deltaE_ciede2000(lab[:-1], lab[1:])
    assert steps.min() > 13
    assert steps.max() < 1.05 * steps.min()


@pytest.mark.parametrize("certainty", [0.2, 0.6, 1.0])
def test_equal_certainty_looks_equally_light_at_every_level(certainty: float) -> None:
    lightness = lab_of(level_colors(np.linspace(0, 10, 41), certainty))[:, 0]
    assert np.ptp(lightness) < 8


@pytest.mark.parametrize("level", [0, 3.5, 10])
def test_lightness_rises_with_certainty_from_nearly_black(level: float) -> None:
    lightness = lab_of(level_colors(level, np.linspace(0, 1, 11)))[:, 0]
    assert lightness[0] < 5
    assert (np.diff(lightness) > 2.5).all()
    assert lightness[-1] > 55


def test_every_patch_has_a_closed_border_of_its_color_just_inside() -> None:
    levels = np.arange(6).reshape(2, 3)
    plane = np.full((168, 252), 7, np.uint16)
    plane[0, 0] = 900
    rating = made_plane(levels, SURE)
    picture = overlay_rgb(plane, rating, key=False, border_px=3)
    assert picture.shape == (168, 252, 3)
    for row in range(2):
        for column in range(3):
            patch = picture[row * 84 : row * 84 + 84, column * 84 : column * 84 + 84]
            color = level_color(levels[row, column], float(rating.patch_certainties[row, column]))
            border = np.ones((84, 84), bool)
            border[3:-3, 3:-3] = False
            np.testing.assert_array_equal(pixels_of_color(patch, color), border)


def test_an_uncertain_patch_is_dark_whatever_its_level() -> None:
    picture = overlay_rgb(np.zeros((84, 168)), made_plane(9, [[SURE, UNSURE]], size_px=(84, 168)), key=False)
    assert max(picture[0, 0]) > 200
    assert max(picture[0, 100]) < 20


@pytest.mark.parametrize(
    ("size_px", "tile_count"),
    [((90, 90), None), ((200, 200), None), ((100, 200), (5, 2)), ((85, 85), None), ((520, 696), (9, 7))],
)
def test_no_border_hides_that_of_an_overlapping_patch(
    size_px: tuple[int, int], tile_count: tuple[int, int] | None
) -> None:
    blank = made_plane(0, size_px=size_px, tile_count=tile_count)
    rows, columns = blank.probabilities.shape[:2]
    levels = (np.arange(rows)[:, None] * 3 + np.arange(columns)) % 11
    rating = made_plane(levels, SURE, size_px=size_px, tile_count=tile_count)
    picture = overlay_rgb(np.zeros(size_px), rating, key=False, border_px=2)
    total = 0
    for row, y in enumerate(rating.y):
        for column, x in enumerate(rating.x):
            patch = picture[y : y + PATCH_PX, x : x + PATCH_PX]
            color = level_color(levels[row, column], float(rating.patch_certainties[row, column]))
            drawn = pixels_of_color(patch, color)
            places = np.argwhere(drawn)
            height, width = np.ptp(places, axis=0) + 1
            assert min(height, width) > 20
            total += 1
    assert total == rows * columns


def test_most_of_the_specimen_stays_visible_and_borders_widen_in_large_images() -> None:
    widths = {}
    for side in (84, 520, 2100, 8400):
        rating = made_plane(4, SURE, size_px=(84, side))
        picture = overlay_rgb(np.zeros((84, side)), rating, key=False)
        drawn = picture.any(axis=2)
        widths[side] = int(drawn[40, :42].sum())
        assert drawn[:, :84].mean() < 0.35
    assert widths[84] == widths[520] == 3
    assert widths[520] < widths[2100] < widths[8400]


def test_the_key_lies_below_the_image_and_changes_nothing_in_it() -> None:
    plane = np.random.default_rng(0).random((168, 252))
    rating = made_plane(3)
    with_key = overlay_rgb(plane, rating)
    np.testing.assert_array_equal(with_key[:168], overlay_rgb(plane, rating, key=False))
    np.testing.assert_array_equal(with_key[168:], key_rgb(252))


@pytest.mark.parametrize("width", [84, 120, 252, 300, 429, 430, 512, 696, 2048, 20000])
def test_the_key_shows_all_levels_and_both_certainties_and_cuts_nothing_off(width: int) -> None:
    key = key_rgb(width)
    assert key.shape[1] == width
    # Of the widest only some pixels are looked at.
    step = 8 if width > 4096 else 1
    key = key[::step, ::step]
    swatches = [pixels_of_color(key, level_color(level, 1.0)) for level in range(11)]
    sizes = [np.ptp(np.argwhere(swatch), axis=0) + 1 for swatch in swatches]
    text_px = step * min(height for height, _ in sizes) / 1.9
    assert text_px > 8.5
    assert pixels_of_color(key, level_color(5, 0.0)).any()
    strip = key[0, 0]
    for edge in (key[0], key[-1], key[:, 0], key[:, -1]):
        assert (edge == strip).all()
    # A number stands in every swatch.
    for level, swatch in enumerate(swatches):
        (top, left), (bottom, right) = np.argwhere(swatch).min(axis=0), np.argwhere(swatch).max(axis=0)
        dark = key[top:bottom, left:right].max(axis=2) < 0.6 * max(level_color(level, 1.0))
        assert dark.sum() > 5
    # In a large image that is shown small the key is as large as the image is: about 1/45 of its width.
    if width >= 696:
        assert text_px > width / 50


@pytest.mark.parametrize("width", [1, 13, 14, 39, 40])
def test_an_image_too_narrow_for_a_key_has_none_and_is_drawn(width: int) -> None:
    rating = made_plane(3, size_px=(50, width))
    picture = overlay_rgb(np.random.default_rng(0).random((50, width)), rating)
    assert picture.shape[1] == width
    assert (len(picture) > 50) == (width >= 40)
    assert (picture[0, 0] == level_color(3, float(rating.patch_certainties[0, 0]))).all()


def test_gray_is_scaled_for_display_and_odd_values_do_no_harm() -> None:
    plane = np.linspace(1000, 1100, 84 * 84).reshape(84, 84)
    plane[40, 40] = np.nan
    picture = overlay_rgb(plane, made_plane(0, size_px=(84, 84)), key=False)
    inside = picture[10:-10, 10:-10, 0]
    assert inside.min() == 0
    assert inside.max() > 200
    assert (overlay_rgb(np.full((84, 84), 5), made_plane(0, size_px=(84, 84)), key=False)[20, 20] == 0).all()


def test_a_plane_that_is_drawn_in_blocks_looks_as_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.random.default_rng(1).random((168, 252))
    at_once = overlay_rgb(plane, made_plane(3))
    monkeypatch.setattr("focusqc.overlay._BLOCK_PX", 1000)
    np.testing.assert_array_equal(overlay_rgb(plane, made_plane(3)), at_once)


def test_the_right_plane_is_read() -> None:
    data = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)
    plane = made_plane(0, size_px=(5, 6), time=1, channel=2, z=3)
    np.testing.assert_array_equal(plane_pixels(Image(data), plane), data[1, 2, 3])


@pytest.mark.parametrize(
    ("dtype", "factor", "range_"),
    [(np.uint8, 1, None), (np.uint16, 257, None), (np.uint16, 16, (0, 4080)), (float, 1 / 255, None)],
)
def test_a_color_image_is_shown_in_its_own_colors(dtype: Any, factor: float, range_: Any) -> None:
    colors = np.random.default_rng(2).integers(0, 256, (84, 100, 3))
    colors[0, 0] = 255
    image = Image.from_array((colors * factor).astype(dtype), "YXS", intensity_range=range_)
    pixels = plane_pixels(image, made_plane(0, size_px=(84, 100)))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, colors)
    picture = overlay_rgb(pixels, made_plane(0, size_px=(84, 100)), key=False)
    np.testing.assert_array_equal(picture[20:60, 10:30], colors[20:60, 10:30])


def test_what_is_no_plane_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        overlay_rgb(np.zeros((84, 84, 3)), made_plane(0))
    with pytest.raises(ValueError, match="shape"):
        overlay_rgb(np.zeros(84), made_plane(0))


def test_a_rating_draws_its_sharpest_plane() -> None:
    data = np.random.default_rng(3).random((1, 1, 3, 168, 252))
    planes = [made_plane(level, 0.5, z=z) for z, level in enumerate((6, 1, 8))]
    rating = made_rating("stack.tif", *planes, image=Image(data))
    expected = overlay_rgb(data[0, 0, 1], planes[1])
    np.testing.assert_array_equal(rating.overlay(), expected)


def test_the_file_holds_the_picture_and_a_large_one_smaller(tmp_path: Path) -> None:
    small = np.random.default_rng(4).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    path = write_overlay(tmp_path / "new folder" / "small.png", small)
    np.testing.assert_array_equal(imageio.v3.imread(path), small)
    large = write_overlay(tmp_path / "large.png", np.full((200, 8192, 3), 9, np.uint8))
    assert imageio.v3.imread(large).shape == (100, 4096, 3)


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_overlay(tmp_path / "a.png", np.zeros((5, 5, 3), np.uint8))
    before = path.read_bytes()

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(LinceiError, match=r"disk|space"):
        write_overlay(path, np.ones((5, 5, 3), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "file",
    [
        "bbbc039_nuclei/IXMtest_A06_s6.tif",
        "beads_zstack/E07_s1_w1_step05_Z9338.18um.tif",
        "he_lymph_node_10x/images/10671.png",
    ],
)
def test_real_images_are_drawn_with_the_specimen_visible(real_data: Path, file: str) -> None:
    image = open_image(real_data / file)
    size_px = (image.shape[3], image.shape[4])
    rating = made_plane(2, size_px=size_px)
    pixels = plane_pixels(image, rating)
    picture = overlay_rgb(pixels, rating, key=False)
    color = level_color(2, float(rating.patch_certainties[0, 0]))
    border = pixels_of_color(picture, color)
    assert 0.05 < border.mean() < 0.3
    shown = picture[~border].astype(float)
    assert shown.std() > 15
