"""Masks and outlines become pixels: where it is tumor, and where that is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from arm_overlay.annotations import write_rois
from arm_overlay.masks import filled, mask_of
from arm_overlay.outline import region_of
from lincei.errors import LinceiError

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'lincei[arm]'")

SHAPE = (40, 60)


def square(left, top, side):
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side], [left, top]]


def geojson(path, *features):
    content = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {"classification": {"name": name}} if name else {},
            }
            for name, rings in features
        ],
    }
    path.write_text(json.dumps(content), "utf-8")
    return path


def box(left, top, side) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(
    ("name", "white", "dtype"), [("m.png", 255, "u1"), ("m.tif", 1, "u1"), ("m.tif", 65535, "u2")]
)
def test_white_is_tumor_whatever_white_is(tmp_path, name, white, dtype):
    expected = box(10, 5, 20)
    pixels = (expected * white).astype(dtype)
    path = tmp_path / name
    if name.endswith(".png"):
        assert cv2.imwrite(str(path), pixels)
    else:
        tifffile.imwrite(path, pixels)
    tumor, known = mask_of(path, SHAPE)
    np.testing.assert_array_equal(tumor, expected)
    assert known.all()


def test_a_mask_that_went_through_jpeg_is_still_one(tmp_path):
    expected = box(8, 8, 24)
    assert cv2.imwrite(
        str(tmp_path / "m.jpg"), expected.astype(np.uint8) * 255, [cv2.IMWRITE_JPEG_QUALITY, 60]
    )
    tumor, _ = mask_of(tmp_path / "m.jpg", SHAPE)
    assert np.mean(tumor != expected) < 0.01


def test_a_black_mask_means_no_tumor(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros(SHAPE, np.uint8))
    tumor, known = mask_of(tmp_path / "m.tif", SHAPE)
    assert not tumor.any()
    assert known.all()


def test_an_image_of_labels_is_no_mask(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE) % 7)
    with pytest.raises(LinceiError, match="brightest value is 6"):
        mask_of(tmp_path / "m.tif", SHAPE)


def test_a_mask_of_another_size_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((30, 60), np.uint8))
    with pytest.raises(LinceiError, match="60 x 30 pixels and its image 60 x 40"):
        mask_of(tmp_path / "m.tif", SHAPE)


def test_an_outline_fills_the_pixels_inside_it(tmp_path):
    path = geojson(tmp_path / "o.geojson", ("Tumor", [square(10, 5, 20)]))
    tumor, _ = mask_of(path, SHAPE)
    np.testing.assert_array_equal(tumor, box(10, 5, 20))


def test_a_hole_is_no_tumor(tmp_path):
    path = geojson(tmp_path / "o.geojson", ("Tumor", [square(5, 5, 30), square(15, 15, 10)]))
    tumor, _ = mask_of(path, SHAPE)
    assert tumor[10, 10]
    assert not tumor[20, 20]


def test_other_classes_are_not_tumor_and_ignored_ones_are_unknown(tmp_path):
    path = geojson(
        tmp_path / "o.geojson",
        ("Tumor", [square(2, 2, 10)]),
        ("Stroma", [square(20, 2, 10)]),
        ("Ignore*", [square(40, 2, 10)]),
    )
    tumor, known = mask_of(path, SHAPE)
    assert (tumor[7, 7], tumor[7, 25], tumor[7, 45]) == (True, False, False)
    assert (known[7, 7], known[7, 25], known[7, 45]) == (True, True, False)


def test_the_user_says_which_classes_are_tumor(tmp_path):
    path = geojson(tmp_path / "o.geojson", ("DCIS", [square(2, 2, 10)]), ("Stroma", [square(20, 2, 10)]))
    tumor, _ = mask_of(path, SHAPE, classes=("dcis",))
    assert tumor[7, 7]
    assert not tumor[7, 25]
    with pytest.raises(LinceiError, match=r"'DCIS', 'Stroma'.*--classes"):
        mask_of(path, SHAPE)


def test_an_outline_without_a_class_is_tumor(tmp_path):
    tumor, _ = mask_of(geojson(tmp_path / "o.geojson", ("", [square(2, 2, 10)])), SHAPE)
    assert tumor[7, 7]


def test_a_file_without_outlines_means_no_tumor(tmp_path):
    tumor, known = mask_of(geojson(tmp_path / "o.geojson"), SHAPE)
    assert not tumor.any()
    assert known.all()


def test_rois_of_imagej_are_tumor(tmp_path):
    pytest.importorskip("roifile", reason="roifile is not installed: pip install 'lincei[arm]'")
    corners = np.array([[10, 5], [30, 5], [30, 25], [10, 25]], np.float32)
    path = write_rois(tmp_path / "r.zip", [region_of(corners)])
    tumor, _ = mask_of(path, SHAPE)
    assert tumor[15, 20]
    assert not tumor[30, 40]


def test_outlines_fit_a_coarser_level_of_the_image(tmp_path):
    path = geojson(tmp_path / "o.geojson", ("Tumor", [square(40, 20, 80)]))
    tumor, _ = mask_of(path, SHAPE, factor=0.25)
    assert np.mean(tumor != box(10, 5, 20)) < 0.03


def test_a_region_beyond_the_image_is_cut():
    corners = np.array([[-20, -20], [10, -20], [10, 10], [-20, 10]], np.float32)
    mask = filled(region_of(corners), SHAPE)
    assert mask[5, 5]
    assert mask.sum() == pytest.approx(121, abs=25)
