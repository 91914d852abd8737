"""Outlines as GeoJSON and ImageJ ROIs: what other programs read in them, and what they write comes back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
from numpy.typing import NDArray

from arm_overlay.annotations import (
    Annotation,
    read_annotations,
    read_geojson,
    read_rois,
    write_geojson,
    write_rois,
)
from arm_overlay.outline import cells_in, region_of
from arm_overlay.overlay import Region
from lincei.errors import LinceiError


def ring(x0: float, y0: float, radius: float, corners: int = 40) -> NDArray[np.float32]:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack([x0 + radius * np.cos(angles), y0 + radius * np.sin(angles)], axis=1)
    # GeoJSON is written to a hundredth of a pixel.
    points: NDArray[np.float32] = np.round(circle, 2).astype(np.float32)
    return points


def square(x0: float, y0: float, side: float) -> NDArray[np.float32]:
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * side + (x0, y0)
    return corners.astype(np.float32)


PLAIN = region_of(ring(60.3, 40.7, 25), score=0.9)
HOLED = region_of(ring(150, 60, 45), [ring(140, 60, 12), ring(175, 60, 9)], score=0.75)


def same_area(found: Region, expected: Region) -> None:
    assert found.area_px == pytest.approx(expected.area_px, rel=1e-3)
    assert found.diameter_px == pytest.approx(expected.diameter_px, rel=1e-3)
    assert len(found.holes) == len(expected.holes)
    shape = (120, 240)
    np.testing.assert_array_equal(cells_in([found], shape, 1), cells_in([expected], shape, 1))


def test_geojson_comes_back_with_holes_and_classes(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.geojson", [PLAIN, HOLED], name="Stroma")
    found = read_annotations(path)
    assert [annotation.name for annotation in found] == ["Stroma", "Stroma"]
    for annotation, expected in zip(found, (PLAIN, HOLED), strict=True):
        same_area(annotation.region, expected)


def test_geojson_is_what_qupath_expects(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.geojson", [HOLED], pixel_size_um=0.5)
    told = json.loads(path.read_text("utf-8"))
    assert told["type"] == "FeatureCollection"
    (feature,) = told["features"]
    properties = feature["properties"]
    assert (properties["objectType"], properties["classification"]["name"]) == ("annotation", "Tumor")
    assert properties["measurements"] == {
        "Mean probability": 0.75,
        "Area um^2": pytest.approx(HOLED.area_px / 4, rel=1e-4),
        "Largest diameter um": pytest.approx(HOLED.diameter_px / 2, rel=1e-4),
    }
    rings = feature["geometry"]["coordinates"]
    assert feature["geometry"]["type"] == "Polygon"
    assert len(rings) == 3
    assert all(corners[0] == corners[-1] for corners in rings)
    # Half a pixel more than in a region: QuPath counts from the corner of the image.
    np.testing.assert_allclose(rings[0][:-1], HOLED.exterior + 0.5, atol=0.005)


def test_measurements_in_um_are_left_out_where_the_pixel_size_is_unknown(tmp_path: Path) -> None:
    told = json.loads(write_geojson(tmp_path / "a.geojson", [PLAIN]).read_text("utf-8"))
    assert told["features"][0]["properties"]["measurements"] == {"Mean probability": 0.9}


def test_points_are_one_annotation(tmp_path: Path) -> None:
    points = np.array([[3, 4], [10.5, 20.25]])
    told = json.loads(
        write_geojson(tmp_path / "a.geojson", [], points=points, name="mitosis").read_text("utf-8")
    )
    (feature,) = told["features"]
    assert feature["geometry"] == {"type": "MultiPoint", "coordinates": [[3.5, 4.5], [11.0, 20.75]]}
    assert feature["properties"]["classification"]["name"] == "mitosis"
    (roi,) = roifile.roiread(write_rois(tmp_path / "a.zip", [], points=points, name="mitosis"))
    assert roi.roitype == roifile.ROI_TYPE.POINT
    np.testing.assert_allclose(roi.coordinates(), points + 0.5)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda features: {"type": "FeatureCollection", "features": features},
        lambda features: features,
        lambda features: {
            "type": "FeatureCollection",
            "features": [{"type": "FeatureCollection", "features": features}],
        },
        lambda features: features[0]["geometry"],
    ],
    ids=["collection", "list", "collection of collections", "bare geometry"],
)
def test_geojson_is_read_however_it_is_put_together(tmp_path: Path, wrapped: Any) -> None:
    written = write_geojson(tmp_path / "a.geojson", [HOLED])
    features = json.loads(written.read_text("utf-8"))["features"]
    path = tmp_path / "b.json"
    path.write_text(json.dumps(wrapped(features)), "utf-8")
    (annotation,) = read_annotations(path)
    same_area(annotation.region, HOLED)


def geojson(tmp_path: Path, geometry: dict[str, Any], properties: Any = None) -> list[Annotation]:
    path = tmp_path / "made.geojson"
    path.write_text(
        json.dumps([{"type": "Feature", "geometry": geometry, "properties": properties}]), "utf-8"
    )
    return read_geojson(path)


def closed(corners: NDArray[Any]) -> list[list[float]]:
    return [*corners.tolist(), corners[0].tolist()]


def test_a_multipolygon_is_several_regions_of_one_class(tmp_path: Path) -> None:
    rings = [[closed(square(0, 0, 10))], [closed(square(20, 0, 10)), closed(square(24, 4, 2))]]
    found = geojson(
        tmp_path,
        {"type": "MultiPolygon", "coordinates": rings},
        {"objectType": "annotation", "classification": {"names": ["Tumor", "Positive"]}},
    )
    assert [(a.name, a.region.area_px, len(a.region.holes)) for a in found] == [
        ("Tumor: Positive", 100, 0),
        ("Tumor: Positive", 96, 1),
    ]
    np.testing.assert_allclose(found[0].region.exterior.min(axis=0), (-0.5, -0.5))


def test_a_polygon_drawn_across_itself_is_inside_where_it_winds_oddly(tmp_path: Path) -> None:
    bow_tie = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    found = geojson(tmp_path, {"type": "Polygon", "coordinates": [closed(bow_tie)]})
    assert sorted(annotation.region.area_px for annotation in found) == [25, 25]
    assert [annotation.name for annotation in found] == ["", ""]


def test_points_and_lines_are_no_areas(tmp_path: Path) -> None:
    assert geojson(tmp_path, {"type": "Point", "coordinates": [1, 2]}) == []
    assert geojson(tmp_path, {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"type": "FeatureCollec', "it is no GeoJSON"),
        (b"\xff\xd8\xff\xe0", "it is no GeoJSON"),
        (b'{"images": 3}', "it is JSON, but not the GeoJSON of outlines"),
        (b'[{"type": "Feature", "geometry": {"type": "Polygon"}}]', "not the GeoJSON of outlines"),
        (
            b'{"type": "Polygon", "coordinates": [[["a", 1], [2, 2], [3, 4]]]}',
            "not the GeoJSON of outlines",
        ),
        (
            b'{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 2], [3, 4]]]}',
            "a corner is not a number",
        ),
        (b'"hello"', "not the GeoJSON of outlines"),
    ],
)
def test_what_is_no_geojson_is_said_with_the_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "broken.geojson"
    path.write_bytes(content)
    with pytest.raises(LinceiError, match=said) as raised:
        read_annotations(path)
    assert raised.value.where == str(path)
    assert "QuPath" in raised.value.what_to_do


def test_rois_come_back_with_holes_and_names(tmp_path: Path) -> None:
    found = read_annotations(write_rois(tmp_path / "a.roi.zip", [PLAIN, HOLED]))
    assert [annotation.name for annotation in found] == ["Tumor-0001", "Tumor-0002"]
    for annotation, expected in zip(found, (PLAIN, HOLED), strict=True):
        same_area(annotation.region, expected)


def test_rois_are_selections_that_imagej_knows(tmp_path: Path) -> None:
    path = write_rois(tmp_path / "a.roi.zip", [PLAIN, HOLED])
    plain, holed = roifile.roiread(path)
    assert plain.roitype == roifile.ROI_TYPE.FREEHAND
    assert plain.subpixelresolution
    np.testing.assert_allclose(plain.coordinates(), PLAIN.exterior + 0.5)
    assert (holed.roitype, holed.composite) == (roifile.ROI_TYPE.RECT, True)
    assert (holed.left, holed.top, holed.right, holed.bottom) == (106, 16, 197, 107)
    rings = holed.coordinates(multi=True)
    assert len(rings) == 3
    for corners, expected in zip(rings, (HOLED.exterior, *HOLED.holes), strict=True):
        np.testing.assert_allclose(corners[:-1], expected + 0.5)
        np.testing.assert_array_equal(corners[0], corners[-1])


def test_regions_of_a_whole_slide_keep_their_places(tmp_path: Path) -> None:
    far = region_of(ring(91_000.25, 70_000.5, 300), [ring(91_000.25, 70_000.5, 100)])
    also_far = region_of(ring(91_000.25, 70_000.5, 300))
    written = write_rois(tmp_path / "a.roi.zip", [far, also_far])
    for annotation in [*read_rois(written), *read_geojson(write_geojson(tmp_path / "a.geojson", [far]))]:
        np.testing.assert_allclose(annotation.region.exterior.mean(axis=0), (91_000.25, 70_000.5), atol=0.02)
        assert annotation.region.diameter_px == pytest.approx(600, rel=1e-3)


def test_shapes_that_were_not_drawn_freely_are_read(tmp_path: Path) -> None:
    rectangle = roifile.ImagejRoi()
    rectangle.roitype = roifile.ROI_TYPE.RECT
    rectangle.left, rectangle.top, rectangle.right, rectangle.bottom = 10, 20, 30, 25
    (found,) = read_rois(saved(rectangle, tmp_path / "rectangle.roi"))
    assert found.region.area_px == 100
    np.testing.assert_array_equal(found.region.exterior.min(axis=0), (9.5, 19.5))
    oval = rectangle
    oval.roitype = roifile.ROI_TYPE.OVAL
    (found,) = read_rois(saved(oval, tmp_path / "oval.roi"))
    assert found.region.area_px == pytest.approx(np.pi * 10 * 2.5, rel=0.02)
    assert found.name == "oval"
    polygon = roifile.ImagejRoi.frompoints(square(3, 4, 10).astype(np.int32), name="by hand")
    (found,) = read_rois(saved(polygon, tmp_path / "polygon.roi"))
    assert (found.name, found.region.area_px) == ("by hand", 100)


def test_two_parts_of_one_selection_are_two_regions(tmp_path: Path) -> None:
    composite = roifile.ImagejRoi()
    composite.roitype = roifile.ROI_TYPE.RECT
    path: list[float] = []
    for corners in (square(0, 0, 10), square(20, 0, 10), square(22, 2, 4)):
        for number, (x, y) in enumerate(corners.tolist()):
            path += [1.0 if number else 0.0, x, y]
        path.append(4.0)
    composite.multi_coordinates = np.array(path, np.float32)
    composite.shape_roi_size = len(path)
    found = read_rois(saved(composite, tmp_path / "a.roi"))
    assert [(a.region.area_px, len(a.region.holes)) for a in found] == [(100, 0), (84, 1)]


def test_lines_and_points_of_a_set_are_passed_over(tmp_path: Path) -> None:
    path = write_rois(tmp_path / "set.zip", [PLAIN], points=np.array([[1, 2]]))
    line = roifile.ImagejRoi()
    line.roitype = roifile.ROI_TYPE.LINE
    line.tofile(path, name="line")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "not a ROI")
    (found,) = read_rois(path)
    same_area(found.region, PLAIN)


def test_selections_of_curves_are_refused_by_name(tmp_path: Path) -> None:
    curved = roifile.ImagejRoi()
    curved.roitype, curved.name = roifile.ROI_TYPE.RECT, "bent"
    curved.multi_coordinates = np.array([0, 1, 1, 3, 2, 2, 3, 3, 4, 4, 4], np.float32)
    curved.shape_roi_size = len(curved.multi_coordinates)
    with pytest.raises(LinceiError, match="bent is made of curves") as raised:
        read_rois(saved(curved, tmp_path / "a.roi"))
    assert "mask" in raised.value.what_to_do


def test_damaged_rois_are_said_with_the_file(tmp_path: Path) -> None:
    path = write_rois(tmp_path / "a.zip", [HOLED])
    cut_short = tmp_path / "cut.zip"
    cut_short.write_bytes(path.read_bytes()[:200])
    no_roi = tmp_path / "no.roi"
    no_roi.write_bytes(b"P5 10 10 255 " + bytes(100))
    for broken in (cut_short, no_roi):
        with pytest.raises(LinceiError, match="ROI") as raised:
            read_annotations(broken)
        assert raised.value.where == str(broken)
        assert "ROI Manager" in raised.value.what_to_do
    with pytest.raises(LinceiError, match="the file is gone"):
        read_annotations(tmp_path / "missing.zip")


def test_an_archive_without_rois_does_not_mean_that_nothing_was_outlined(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.tif", b"II*")
    with pytest.raises(LinceiError, match="there is no ROI in this archive"):
        read_annotations(tmp_path / "images.zip")


def test_other_files_are_refused_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(LinceiError, match=r"\.geojson, \.json \(QuPath\), \.roi, \.zip \(ImageJ\)"):
        read_annotations(tmp_path / "outline.svg")


def test_equal_outlines_give_equal_files(tmp_path: Path) -> None:
    for name, write in (("geojson", write_geojson), ("zip", write_rois)):
        first, second = (write(tmp_path / f"{n}.{name}", [PLAIN, HOLED]) for n in "ab")
        assert first.read_bytes() == second.read_bytes()


def saved(roi: roifile.ImagejRoi, path: Path) -> Path:
    roi.tofile(path)
    return path
