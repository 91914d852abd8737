"""Layers as images, and where results lie: checked through the layers' own transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels

from lincei.errors import LinceiError
from napari_plugin.layers import (
    AXES_BY_NUMBER,
    METADATA_KEY,
    axes_choices,
    current_index,
    image_of,
    pixel_size_um,
    placement,
    safe_name,
    shown_region,
    z_step_um,
)

PLANE = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
STACK = np.arange(5 * 40 * 60, dtype=np.uint16).reshape(5, 40, 60)

PLACES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "scaled": {"scale": (2.0, 0.5, 0.5), "units": ("micrometer",) * 3},
    "anisotropic and moved": {"scale": (3.0, 0.25, 0.5), "translate": (10.0, -7.0, 4.0)},
    "rotated": {"scale": (2.0, 0.5, 0.5), "rotate": (0.0, 0.0, 30.0), "translate": (1.0, 2.0, 3.0)},
    "sheared": {"shear": (0.0, 0.0, 0.3), "scale": (1.0, 2.0, 1.0)},
    "affine": {
        "affine": np.array([[1, 0, 0, 5], [0, 0.8, -0.6, 1], [0, 0.6, 0.8, -2], [0, 0, 0, 1]], dtype=float),
        "scale": (1.0, 0.5, 0.5),
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_a_result_with_all_axes_lies_on_its_layer(qt_application, place):
    layer = ImageLayer(STACK, **PLACES[place])
    result = ImageLayer(STACK, **placement(layer, (0, 1, 2)))
    for point in ((0, 0, 0), (4, 39, 59), (2, 7.5, 21)):
        np.testing.assert_allclose(result.data_to_world(point), layer.data_to_world(point), atol=1e-9)
    assert result.units == layer.units
    assert result.axis_labels == layer.axis_labels


@pytest.mark.parametrize("place", PLACES)
def test_a_projection_lies_on_its_layer_in_the_plane(qt_application, place):
    layer = ImageLayer(STACK, **PLACES[place])
    result = ImageLayer(PLANE, **placement(layer, (1, 2)))
    for y, x in ((0, 0), (39, 59), (7.5, 21)):
        np.testing.assert_allclose(
            result.data_to_world((y, x)), layer.data_to_world((0, y, x))[1:], atol=1e-9
        )


@pytest.mark.parametrize("place", PLACES)
def test_a_part_in_larger_pixels_covers_the_pixels_that_it_is_of(qt_application, place):
    """Pixel (1, 2) of a result of 4x4 blocks from (8, 12) on is centered between the pixels of its block."""
    layer = ImageLayer(STACK, **PLACES[place])
    result = ImageLayer(PLANE, **placement(layer, (1, 2), offset_px=(8, 12), step_px=(4, 4)))
    corners = [layer.data_to_world((0, 8 + 4 + dy, 12 + 8 + dx))[1:] for dy in (0, 3) for dx in (0, 3)]
    np.testing.assert_allclose(result.data_to_world((1, 2)), np.mean(corners, axis=0), atol=1e-9)


def test_a_layer_that_is_not_turned_gives_plain_scale_and_translate(qt_application):
    layer = ImageLayer(STACK, scale=(2.0, 0.5, 0.5), translate=(1, 2, 3))
    placed = placement(layer, (0, 1, 2))
    assert "affine" not in placed
    np.testing.assert_allclose(placed["scale"], (2, 0.5, 0.5))
    np.testing.assert_allclose(placed["translate"], (1, 2, 3))


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        ("micrometer", 0.5, 0.5),
        ("nanometer", 325.0, 0.325),
        ("millimeter", 0.002, 2.0),
        ("pixel", 1.0, None),
        ("pixel", 0.5, None),
        ("second", 3.0, None),
    ],
)
def test_the_pixel_size_is_read_in_um_whatever_the_unit(qt_application, unit, scale, expected):
    layer = ImageLayer(PLANE, scale=(scale, scale), units=(unit, unit))
    assert pixel_size_um(layer) == (None if expected is None else pytest.approx(expected))


def test_the_z_step_is_that_of_the_z_axis(qt_application):
    layer = ImageLayer(
        np.zeros((2, 3, 8, 9)), scale=(60, 1500, 325, 325), units=("second", *("nanometer",) * 3)
    )
    assert z_step_um(layer, "TZYX") == pytest.approx(1.5)
    assert z_step_um(layer, "TCYX") is None


def test_what_a_reader_knows_stands_in_for_a_scale_in_pixels_but_does_not_go_before_one(qt_application):
    known = {METADATA_KEY: {"pixel_size_um": 0.4, "z_step_um": 3.0, "modality": "DIC", "unrelated": 1}}
    image = image_of(ImageLayer(STACK, metadata=known))
    assert (image.pixel_size_um, image.z_step_um, image.modality) == (0.4, 3.0, "DIC")
    corrected = ImageLayer(STACK, metadata=known, scale=(2, 0.5, 0.5), units=("micrometer",) * 3)
    image = image_of(corrected)
    assert (image.pixel_size_um, image.z_step_um) == (0.5, 2.0)
    assert image_of(corrected, pixel_size_um=0.7, modality=None).pixel_size_um == 0.7


def test_pixels_that_are_not_square_are_refused(qt_application):
    layer = ImageLayer(PLANE, scale=(0.5, 0.6), units=("micrometer",) * 2, name="a")
    with pytest.raises(LinceiError, match=r"a: its pixels are not square: 0.6 um along x, 0.5 um along y"):
        pixel_size_um(layer)


@pytest.mark.parametrize(("number", "first"), [(2, "YX"), (3, "ZYX"), (4, "TZYX"), (5, "TCZYX")])
def test_axes_without_names_are_the_likeliest(qt_application, number, first):
    layer = ImageLayer(np.zeros((2,) * (number - 2) + (8, 9)))
    assert axes_choices(layer) == AXES_BY_NUMBER[number]
    assert axes_choices(layer)[0] == first
    image = image_of(layer)
    assert image.shape[3:] == (8, 9)


def test_named_axes_go_first_and_five_of_them_reach_the_image_in_order(qt_application):
    data = np.arange(2 * 3 * 4 * 8 * 9).reshape(2, 3, 4, 8, 9)
    layer = ImageLayer(data, axis_labels=("channel", "time", "plane", "y", "x"))
    assert axes_choices(layer)[0] == "CTZYX"
    np.testing.assert_array_equal(image_of(layer).read(), data.swapaxes(0, 1))


def test_six_axes_are_too_many(qt_application):
    with pytest.raises(LinceiError, match="the layer has 6 axes"):
        axes_choices(ImageLayer(np.zeros((1, 1, 1, 1, 4, 4))))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_color_layer_is_red_green_blue_without_alpha(qt_application, channels):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, channels)).astype(np.uint8)
    image = image_of(ImageLayer(pixels, rgb=True))
    assert image.rgb
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels[..., :3], -1, 0))


def test_alpha_of_a_lazy_color_layer_is_left_out_when_it_is_read(qt_application):
    import dask.array

    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 4)).astype(np.uint8)
    image = image_of(ImageLayer(dask.array.from_array(pixels), rgb=True))
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels[..., :3], -1, 0))


def test_a_layer_of_labels_is_no_image(qt_application):
    with pytest.raises(LinceiError, match="this is a labels layer, not an image"):
        image_of(Labels(np.zeros((4, 4), int)))


def test_nothing_is_copied(qt_application):
    assert np.shares_memory(image_of(ImageLayer(STACK)).read(), STACK)


def test_the_finest_level_of_a_pyramid_is_the_image(viewer):
    fine = np.random.default_rng(0).random((400, 600)).astype(np.float32)
    layer = viewer.add_image([fine, fine[::2, ::2], fine[::4, ::4]], multiscale=True)
    image = image_of(layer)
    np.testing.assert_array_equal(image.read()[0, 0, 0], fine)


def test_what_is_in_view_is_given_in_pixels_of_the_finest_level(viewer, until):
    fine = np.random.default_rng(0).random((4096, 6144)).astype(np.float32)
    layer = viewer.add_image(
        [fine, fine[::2, ::2], fine[::4, ::4], fine[::8, ::8]],
        multiscale=True,
        scale=(0.5, 0.5),
        translate=(100, 200),
    )
    viewer.reset_view()
    # All of it is in view, drawn from a coarse level.
    until(lambda: layer.data_level > 0, "a coarse level is drawn")
    whole = shown_region(layer)
    assert whole["Y"].stop - whole["Y"].start >= 4096 - 8
    assert whole["X"].stop - whole["X"].start >= 6144 - 8
    viewer.scene.camera.center = (100 + 0.5 * 1000, 200 + 0.5 * 3000)
    viewer.scene.camera.zoom *= 12
    until(lambda: shown_region(layer)["Y"].start > 500, "the part in view has moved")
    part = shown_region(layer)
    assert part["Y"].start < 1000 < part["Y"].stop
    assert part["X"].start < 3000 < part["X"].stop
    assert part["X"].stop - part["X"].start < 2000
    cut = shown_region(layer, most_px=64)
    assert cut["Y"].stop - cut["Y"].start == 64
    assert cut["Y"].start + 32 == pytest.approx((part["Y"].start + part["Y"].stop) / 2, abs=1)


def test_a_layer_out_of_sight_is_shown_as_a_whole(viewer, until):
    layer = viewer.add_image(PLANE)
    viewer.scene.camera.center = (10_000, 10_000)
    until(lambda: np.ptp(layer.corner_pixels[:, 0]) < 2, "the layer is out of sight")
    assert shown_region(layer) == {"Y": slice(0, 40), "X": slice(0, 60)}


def test_the_plane_that_is_shown_is_that_of_the_slider(viewer):
    layer = viewer.add_image(STACK, scale=(2.5, 1, 1), translate=(10, 0, 0))
    viewer.dims.set_point(0, 10 + 2.5 * 3)
    assert current_index(viewer, layer, 0) == 3
    viewer.add_image(np.zeros((100, 4, 4)))
    viewer.dims.set_point(0, 90)
    assert current_index(viewer, layer, 0) == 4


@pytest.mark.parametrize(
    ("name", "safe"), [("a/b:c", "a-b-c"), ("Zellen Größe 2.tif", "Zellen Größe 2.tif"), (" . ", "image")]
)
def test_a_layers_name_is_made_fit_for_a_file(name, safe):
    assert safe_name(name) == safe
