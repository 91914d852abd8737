"""Folders that napari opens with lincei, and images that it saves with it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from lincei.errors import LinceiError, LinceiWarning
from lincei.image import Image, open_image, save_image
from napari_plugin import readers
from napari_plugin.layers import image_of

PUBLISHED = (
    "lab-Rubin,condition-scott_1_0,acquisition_date,year-2016,month-2,day-6,well-{well},"
    "{depth},channel,value-{channel},is_mask-false,kind,value-ORIGINAL.png"
)
PROBABILITIES = {f"p{k:02d}": "0" for k in range(11)}


def write_published(folder: Path, wells: tuple[str, ...] = ("r0c0",)) -> Path:
    for well in wells:
        for z in range(3):
            name = PUBLISHED.format(well=well, depth=f"z_depth-{z}", channel="PHASE_CONTRAST")
            iio.imwrite(folder / name, np.full((8, 12), 10 * z, np.uint16))
        name = PUBLISHED.format(
            well=well, depth="depth_computation,value-MAXPROJECT", channel="DAPI_CONFOCAL"
        )
        iio.imwrite(folder / name, np.full((8, 12), 7, np.uint16))
    return folder


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def patch(file: str, row: int, column: int, level: int, certainty: float, **others: Any) -> dict[str, Any]:
    place = {"x": 84 * column, "y": 84 * row, "width": 84, "height": 84}
    of_plane = {"file": file, "time": 0, "channel": 0, "z": 0, "row": row, "column": column}
    rating = {"predicted_level": level, "expected_level": level, "certainty": certainty}
    return {**of_plane, **place, **rating, **PROBABILITIES, "in_focus": "yes", **others}


def write_focus_results(folder: Path, patches: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    write_table(folder / "patches.csv", patches)
    write_table(folder / "images.csv", [{"file": file} for file in dict.fromkeys(p["file"] for p in patches)])
    return folder


def read(path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    reader = readers.get_reader(str(path))
    assert reader is not None
    return reader(str(path))


def by_name(layers: list[tuple[Any, dict[str, Any], str]]) -> Mapping[str, Any]:
    return {keywords["name"]: (data, keywords, kind) for data, keywords, kind in layers}


def test_a_published_field_is_a_stack_and_its_stains_in_their_colors(tmp_path, viewer):
    write_published(tmp_path)
    layers = viewer.open(str(tmp_path), plugin="lincei")
    stack, stain = layers
    assert stack.name == "Rubin_scott_1_0_2016-2-6_r0c0 phase contrast"
    assert stack.data.shape == (3, 8, 12)
    np.testing.assert_array_equal(stack.data[:, 0, 0], [0, 10, 20])
    assert stack.axis_labels == ("z", "y", "x")
    assert stain.name.endswith(" DAPI_CONFOCAL")
    assert stain.blending == "additive"
    np.testing.assert_allclose(stain.colormap.colors[-1][:3], [0, 0, 1], atol=0.01)
    image = image_of(stack)
    assert image.modality == "phase contrast"
    assert image.shape == (1, 1, 3, 8, 12)


def test_one_published_image_opens_its_whole_field_and_no_other(tmp_path):
    write_published(tmp_path, ("r0c0", "r0c1"))
    one = tmp_path / PUBLISHED.format(well="r0c1", depth="z_depth-2", channel="PHASE_CONTRAST")
    stack, stain = read(one)
    assert stack[1]["name"] == "Rubin_scott_1_0_2016-2-6_r0c1 phase contrast"
    assert stack[0].shape == (3, 8, 12)
    assert stain[0].shape == (8, 12)


def test_a_folder_of_other_images_is_left_to_other_readers(tmp_path):
    iio.imwrite(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    assert readers.get_reader(str(tmp_path)) is None
    assert readers.get_reader(str(tmp_path / "a.png")) is None
    (tmp_path / "images.csv").write_text("a\n1\n")
    assert readers.get_reader(str(tmp_path / "images.csv")) is None


def test_lincei_refuses_a_folder_of_other_images_in_a_sentence_and_napari_still_opens_it(tmp_path, viewer):
    iio.imwrite(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"'lincei' was selected .* refused"):
        viewer.open(str(tmp_path), plugin="lincei")
    assert len(viewer.layers) == 0
    viewer.open(str(tmp_path))  # as scripts do: nobody is asked
    assert viewer.layers[0].data.shape == (4, 4)


def test_published_data_deeper_in_a_folder_are_found_beside_others(tmp_path):
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("notes")
    deep = tmp_path / "data" / "condition_a"
    deep.mkdir(parents=True)
    write_published(deep)
    assert readers.get_reader(str(tmp_path)) is readers.read_published


def test_a_large_folder_of_other_files_is_answered_after_a_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_MOST_ENTRIES", 40)
    for folder in range(10):
        (tmp_path / f"{folder}").mkdir()
        for number in range(10):
            (tmp_path / f"{folder}" / f"{number}.txt").touch()
    looked: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scan(path))
    assert readers.get_reader(str(tmp_path)) is None
    assert len(looked) == 4


def test_of_many_fields_the_first_are_shown_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_IMAGES", 2)
    write_published(tmp_path, ("r0c0", "r0c1", "r0c2"))
    with pytest.warns(LinceiWarning, match="of 3 fields the first 2 are shown"):
        layers = read(tmp_path)
    assert len(layers) == 4


def test_focus_results_lie_on_their_image_in_the_colors_of_the_overlay(tmp_path, viewer):
    from focusqc.overlay import level_color

    pixels = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)
    save_image(Image.from_array(pixels, "YX", pixel_size_um=0.5), tmp_path / "a.ome.tif")
    results = write_focus_results(
        tmp_path / "focus", [patch("a.ome.tif", 0, 0, 0, 1.0), patch("a.ome.tif", 1, 2, 10, 0.4)]
    )
    image, borders = viewer.open(str(results), plugin="lincei")
    np.testing.assert_array_equal(image.data, pixels)
    np.testing.assert_allclose(image.scale, [0.5, 0.5])
    assert borders.name == "a focus"
    assert str(borders.units[0]) == "micrometer"
    # The second patch covers rows 84 to 167 and columns 168 to 251, and its border lies within.
    low, high = borders.data[1].min(axis=0), borders.data[1].max(axis=0)
    half = borders.edge_width[1] / 2
    np.testing.assert_allclose(borders.data_to_world(low - half), np.array([83.5, 167.5]) * 0.5)
    np.testing.assert_allclose(borders.data_to_world(high + half), np.array([167.5, 251.5]) * 0.5)
    np.testing.assert_allclose(borders.edge_color[1][:3] * 255, level_color(10, 0.4), atol=0.51)
    assert list(borders.features["predicted_level"]) == [0, 10]
    assert list(borders.features["in_focus"]) == ["yes", "yes"]


def test_a_rated_stack_has_its_borders_plane_by_plane(tmp_path):
    stack = np.zeros((3, 90, 90), np.uint8)
    save_image(Image.from_array(stack, "ZYX", z_step_um=2.0, pixel_size_um=1.0), tmp_path / "s.ome.tif")
    results = write_focus_results(
        tmp_path / "out", [patch("s.ome.tif", 0, 0, level, 0.5, z=level) for level in range(3)]
    )
    layers = by_name(read(results / "patches.csv"))
    corners, keywords, kind = layers["s focus"]
    assert kind == "shapes"
    assert corners[:, 0, 0].tolist() == [0, 1, 2]
    assert keywords["scale"] == [2.0, 1.0, 1.0]


def test_the_overlay_stands_in_for_an_image_that_is_gone(tmp_path):
    results = write_focus_results(tmp_path / "out", [patch("gone.tif", 0, 0, 3, 0.5)])
    (results / "overlays").mkdir()
    iio.imwrite(results / "overlays" / "gone.png", np.full((100, 84, 3), 9, np.uint8))
    with pytest.warns(LinceiWarning, match=r"gone.tif was not found"):
        layers = by_name(read(results))
    data, keywords, _ = layers["gone overlay"]
    assert data.shape == (100, 84, 3)
    assert keywords["scale"] == [1.0, 1.0]


def test_many_patches_become_a_picture_with_a_pixel_for_each(tmp_path, viewer, monkeypatch):
    from focusqc.overlay import level_color

    monkeypatch.setattr(readers, "MOST_SHAPES", 1)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((168, 168), np.uint8))
    results = write_focus_results(
        tmp_path / "out", [patch("a.tif", 0, 0, 0, 1.0), patch("a.tif", 1, 1, 10, 1.0)]
    )
    _, picture = viewer.open(str(results), plugin="lincei")
    assert picture.data.shape == (2, 2, 4)
    np.testing.assert_array_equal(picture.data[1, 1, :3], level_color(10, 1))
    assert picture.data[0, 1, 3] == 0
    # The middle of the second patch is between pixels 125 and 126 of the image.
    np.testing.assert_allclose(picture.data_to_world((1, 1)), [125.5, 125.5])


def test_a_damaged_table_is_named(tmp_path):
    results = write_focus_results(tmp_path / "out", [patch("a.tif", 0, 0, 0, 1.0)])
    (results / "patches.csv").write_text("file,x\na.tif,3\n")
    with pytest.raises(LinceiError, match=r"patches.csv: the table has no column 'y'"):
        read(results)
    write_focus_results(results, [patch("a.tif", 0, 0, 0, 1.0, y="left")])
    with pytest.raises(LinceiError, match="'left' as y"):
        read(results)


def test_what_lincei_focus_wrote_is_read(tmp_path, viewer):
    from focusqc.focus_files import focus_files
    from focusqc.options import FocusOptions

    pixels = np.random.default_rng(0).poisson(200, (170, 252)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "field.tif", pixels)
    focus_files([str(tmp_path / "field.tif")], tmp_path / "focus", FocusOptions())
    image, borders = viewer.open(str(tmp_path / "focus"), plugin="lincei")
    np.testing.assert_array_equal(image.data, pixels)
    with (tmp_path / "focus" / "patches.csv").open(newline="") as stream:
        tops = [float(row["y"]) for row in csv.DictReader(stream)]
    assert len(set(tops)) == 3  # the last row of patches ends at the image's edge
    half = borders.edge_width[0] / 2
    np.testing.assert_allclose([corners[:, 0].min() - half for corners in borders.data], np.array(tops) - 0.5)
    assert set(borders.features.columns) >= {"predicted_level", "certainty", "p10"}


def test_channels_are_layers_of_their_own_and_large_images_are_read_as_shown(monkeypatch):
    monkeypatch.setattr(readers, "IN_MEMORY_BYTES", 10)
    data = np.arange(2 * 2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 2, 3, 4, 5)

    class Lazy:
        shape, dtype = data.shape, data.dtype

        def __getitem__(self, key: Any) -> Any:
            return data[key]

    image = Image(Lazy(), name="a", channel_names=("red", "green"), channel_colors=("#FF0000", "#00FF00"))
    first, second = readers.image_layers(image)
    assert (first[1]["name"], second[1]["name"]) == ("a red", "a green")
    assert second[1]["colormap"] == "#00FF00"
    assert not isinstance(second[0], np.ndarray)
    np.testing.assert_array_equal(np.asarray(second[0]), data[:, 1])


def test_a_saved_layer_keeps_its_pixel_size_z_step_and_modality(tmp_path, viewer):
    stack = np.arange(3 * 8 * 9, dtype=np.uint16).reshape(3, 8, 9)
    layer = viewer.add_image(
        stack, scale=(2000, 325, 325), units=("nanometer",) * 3, axis_labels=("z", "y", "x"), name="stack"
    )
    (path,) = layer.save(str(tmp_path / "stack.ome.tif"))
    image = open_image(path)
    np.testing.assert_array_equal(image.read()[0, 0], stack)
    assert image.pixel_size_um == pytest.approx(0.325)
    assert image.z_step_um == pytest.approx(2.0)


def test_a_color_layer_is_saved_in_color(tmp_path, viewer):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    layer = viewer.add_image(pixels, rgb=True, scale=(0.5, 0.5), units=("micrometer",) * 2)
    (path,) = layer.save(str(tmp_path / "section.ome.tif"), plugin="lincei")
    image = open_image(path)
    assert image.rgb
    np.testing.assert_array_equal(image.read()[0, :, 0], np.moveaxis(pixels, -1, 0))
    assert image.pixel_size_um == pytest.approx(0.5)
