"""Raw frames become balanced colors of the right size and place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.developing import (
    GLASS,
    NEUTRAL,
    Developing,
    developed,
    developed_size,
    flat_field_of,
    read_developing,
    white_balance_of,
    write_developing,
)
from arm_overlay.frames import BAYER_PATTERNS, Frame
from arm_overlay.imaging import mosaic
from lincei.errors import LinceiError

LINEAR = Developing(gamma=1.0)


def quadrants(height: int = 96, width: int = 160) -> NDArray[np.uint8]:
    """Return a scene of four colors."""
    colors = np.empty((height, width, 3), np.uint8)
    half_y, half_x = height // 2, width // 2
    colors[:half_y, :half_x] = (200, 60, 30)
    colors[:half_y, half_x:] = (40, 180, 90)
    colors[half_y:, :half_x] = (20, 70, 210)
    colors[half_y:, half_x:] = (130, 140, 150)
    return colors


def middles(colors: NDArray[Any]) -> NDArray[np.float64]:
    """Return the colors in the middle of the four quadrants."""
    height, width = colors.shape[:2]
    places = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    return np.array([colors[y, x] for y, x in places], np.float64)


def raw(colors: NDArray[np.uint8], bayer: str = "RGGB", bits: int = 8, **fields: Any) -> Frame:
    """Return a scene as a linear camera hands it over."""
    values = mosaic(colors, bayer)
    if bits > 8:
        values = np.rint(values.astype(np.float64) / 255 * (2**bits - 1)).astype(np.uint16)
    return Frame(values, 0.0, 0, bits, bayer, **fields)


def light_of_glass(size: tuple[int, int] = (160, 96), falloff: float = 0.0) -> NDArray[np.float64]:
    """Return empty glass under a warm lamp, darker toward the corners: (Y, X, 3), 0 to 1."""
    y, x = np.mgrid[: size[1], : size[0]]
    away = ((y / size[1] - 0.5) ** 2 + (x / size[0] - 0.4) ** 2) * 2
    return (1 - falloff * away)[..., None] * np.array([0.62, 0.85, 0.5])


def photographed(light: NDArray[np.float64], bits: int = 12) -> Frame:
    """Return linear light behind a mosaic, with noise."""
    values = mosaic(light, "GRBG") * (2**bits - 1)
    values += np.random.default_rng(0).normal(0, 0.004 * 2**bits, values.shape)
    return Frame(np.clip(values, 0, 2**bits - 1).astype(np.uint16), 0.0, 0, bits, "GRBG")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("bayer", BAYER_PATTERNS)
def test_the_colors_behind_a_mosaic_come_back_at_every_scale(bayer: str, bits: int) -> None:
    scene = quadrants()
    for scale in (0.25, 0.3, 0.5, 0.6, 0.8, 1.0, 1.5):
        colors = developed(raw(scene, bayer, bits), LINEAR, scale)
        assert colors.dtype == np.uint8
        assert colors.shape[1::-1] == developed_size((160, 96), scale)
        np.testing.assert_allclose(middles(colors), middles(scene), atol=1)


@pytest.mark.parametrize("bits", [8, 12])
def test_color_frames_are_display_values_already(bits: int) -> None:
    scene = quadrants()
    deep = scene if bits == 8 else np.rint(scene / 255 * 4095).astype(np.uint16)
    for scale in (0.2, 0.5, 0.7, 1.0):
        colors = developed(Frame(deep, 0.0, 0, bits), NEUTRAL, scale)
        np.testing.assert_allclose(middles(colors), middles(scene), atol=1)
    balanced = developed(Frame(deep, 0.0, 0, bits), Developing((1.2, 1.0, 0.5)))
    expected = np.minimum(middles(scene) * (1.2, 1.0, 0.5), 255)
    np.testing.assert_allclose(middles(balanced), expected, atol=1)


def test_a_color_frame_of_the_right_size_is_not_copied() -> None:
    frame = Frame(quadrants(), 0.0, 0)
    assert developed(frame) is frame.pixels


def test_values_behind_a_mosaic_get_a_display_curve() -> None:
    colors = developed(raw(np.full((16, 16, 3), 55, np.uint8)), Developing(gamma=2.2), 0.5)
    np.testing.assert_allclose(colors, 255 * (55 / 255) ** (1 / 2.2), atol=1)
    dark = developed(raw(np.full((16, 16, 3), 51, np.uint8)), Developing(gamma=1.0, black_level=0.1), 0.5)
    np.testing.assert_allclose(dark, 255 * (0.2 - 0.1) / 0.9, atol=1)


@pytest.mark.parametrize("scale", [0.25, 0.3, 0.5, 0.55, 0.75, 1.0])
@pytest.mark.parametrize("bayer", ["", "RGGB"])
def test_what_is_in_a_frame_stays_where_it_is(bayer: str, scale: float) -> None:
    y, x = np.mgrid[:240, :400]
    spot = np.hypot(y - 90, x - 260) < 30
    scene = np.where(spot[..., None], 20, 220).astype(np.uint8).repeat(3, axis=2)
    frame = raw(scene, bayer) if bayer else Frame(scene, 0.0, 0)
    green = 220.0 - developed(frame, LINEAR, scale)[..., 1]
    rows, columns = np.mgrid[: green.shape[0], : green.shape[1]]
    found = np.array([(columns * green).sum(), (rows * green).sum()]) / green.sum()
    expected = (np.array([260, 90]) + 0.5) * scale - 0.5
    np.testing.assert_allclose(found, expected, atol=0.25)


def test_frames_are_read_however_they_lie_in_memory() -> None:
    scene = quadrants()
    plain = developed(raw(scene), LINEAR, 0.5)
    values = mosaic(scene, "RGGB")
    in_larger = np.zeros((200, 300), np.uint8)
    in_larger[10:106, 20:180] = values
    flipped = values[::-1, ::-1].copy()[::-1, ::-1]
    for pixels in (in_larger[10:106, 20:180], flipped, np.asfortranarray(values)):
        pixels.setflags(write=False)
        np.testing.assert_array_equal(developed(Frame(pixels, 0.0, 0, 8, "RGGB"), LINEAR, 0.5), plain)


def test_pixels_stored_wider_or_narrower_than_their_bits_are_read() -> None:
    scene = quadrants()
    wide = Frame(mosaic(scene, "RGGB").astype(np.uint16), 0.0, 0, 8, "RGGB")
    np.testing.assert_allclose(middles(developed(wide, LINEAR, 0.5)), middles(scene), atol=1)
    narrow = Frame(np.full((16, 16, 3), 255, np.uint8), 0.0, 0, 10)
    assert developed(narrow).max() == round(255 * 255 / 1023)


def test_a_frame_of_odd_sides_is_developed() -> None:
    for scale in (0.5, 1.0):
        colors = developed(raw(quadrants(97, 161)), LINEAR, scale)
        assert colors.shape[1::-1] == developed_size((161, 97), scale)


def test_an_empty_field_becomes_white() -> None:
    frame = photographed(light_of_glass())
    balanced = developed(frame, white_balance_of(frame), 0.5)
    np.testing.assert_allclose(balanced.mean(axis=(0, 1)), GLASS, atol=1.5)
    color_frame = Frame(developed(frame, NEUTRAL), 0.0, 0)
    balanced = developed(color_frame, white_balance_of(color_frame), 0.5)
    np.testing.assert_allclose(balanced.mean(axis=(0, 1)), GLASS, atol=1.5)


def test_a_flat_field_evens_bright_and_dark_places_alike() -> None:
    empty = photographed(light_of_glass(falloff=0.5))
    developing = flat_field_of(empty, white_balance_of(empty))
    uneven = developed(empty, white_balance_of(empty), 0.5).reshape(-1, 3)
    assert np.ptp(np.percentile(uneven, (2, 98), axis=0), axis=0).min() > 25
    even = developed(empty, developing, 0.5)
    np.testing.assert_allclose(even.mean(axis=(0, 1)), GLASS, atol=2.5)
    blocks = even.reshape(6, 8, 10, 8, 3).mean(axis=(1, 3))
    assert np.ptp(blocks, axis=(0, 1)).max() < 5
    # What lets a tenth of the light through is as dark in a corner as in the middle.
    dark = developed(photographed(0.1 * light_of_glass(falloff=0.5)), developing, 0.5)
    blocks = dark.reshape(6, 8, 10, 8, 3).mean(axis=(1, 3))
    assert np.ptp(blocks, axis=(0, 1)).max() < 8


def test_a_field_that_is_not_empty_is_no_white() -> None:
    light = light_of_glass()
    light[30:70, 40:110] *= (0.8, 0.35, 0.7)
    with pytest.raises(LinceiError, match="not empty"):
        white_balance_of(photographed(light))
    with pytest.raises(LinceiError, match="overexposed"):
        white_balance_of(photographed(light_of_glass() * 1.4))
    with pytest.raises(LinceiError, match="dark"):
        flat_field_of(photographed(light_of_glass() * 0.0005))


def test_a_monochrome_camera_is_refused_with_a_sentence() -> None:
    with pytest.raises(LinceiError, match=r"monochrome.*colors of the stain"):
        developed(Frame(np.zeros((20, 20), np.uint8), 0.0, 0))


def test_pixels_that_no_camera_has_are_refused() -> None:
    with pytest.raises(LinceiError, match="float32"):
        developed(Frame(np.zeros((20, 20, 3), np.float32), 0.0, 0))
    with pytest.raises(LinceiError, match="shape"):
        developed(Frame(np.zeros((20, 20, 4), np.uint8), 0.0, 0))
    with pytest.raises(LinceiError, match="XYZW"):
        developed(Frame(np.zeros((20, 20), np.uint8), 0.0, 0, 8, "XYZW"))
    with pytest.raises(LinceiError, match="enlarged 5 times"):
        developed(raw(quadrants()), LINEAR, 5.0)


def test_white_balance_and_flat_field_are_kept_in_a_file(tmp_path: Path) -> None:
    empty = photographed(light_of_glass(falloff=0.4))
    developing = flat_field_of(empty, white_balance_of(empty, Developing(gamma=2.0, black_level=0.01)))
    write_developing(tmp_path / "empty.npz", developing)
    found = read_developing(tmp_path / "empty.npz")
    np.testing.assert_array_equal(developed(empty, found, 0.5), developed(empty, developing, 0.5))
    write_developing(tmp_path / "plain.npz", NEUTRAL)
    assert read_developing(tmp_path / "plain.npz").flat_field is None
    (tmp_path / "other.npz").write_text("not an archive")
    with pytest.raises(LinceiError, match="holds no white balance"):
        read_developing(tmp_path / "other.npz")
    with pytest.raises(LinceiError, match="no such file"):
        read_developing(tmp_path / "missing.npz")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(LinceiError, match="white balance"):
        Developing((0.0, 1.0, 1.0))
    with pytest.raises(LinceiError, match="gamma"):
        Developing(gamma=0.2)
    with pytest.raises(LinceiError, match="flat field is damaged"):
        Developing(flat_field=np.full((4, 4, 3), np.nan, np.float32))
