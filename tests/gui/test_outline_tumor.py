"""Outlining tumor in a real window: what is drawn, measured, corrected and exported."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from qtpy.QtWidgets import QApplication

from arm_overlay.annotations import read_annotations, write_geojson
from arm_overlay.masks import filled
from arm_overlay.tumor_image import tumor
from lincei.image import Image, save_image
from lincei.progress import stop_if_cancelled
from napari_plugin.outline_tumor import OutlineTumor, regions_drawn
from sample_data.slides import open_slide

PIXEL_SIZE_UM = 1.0
# Width and height; cells of the network do not fill it up.
SIZE_PX = (797, 590)


@pytest.fixture(scope="module")
def section() -> np.ndarray:
    """A part of the drawn slide with tumor in it."""
    slide = open_slide("drawn")
    rows, columns = np.nonzero(slide.overview(20.0).tumor)
    nearest = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    left, top = 20.0 * columns[nearest] - 400, 20.0 * rows[nearest] - 300
    return slide.read(left, top, SIZE_PX, PIXEL_SIZE_UM).rgb


@pytest.fixture(scope="module")
def direct(section: np.ndarray) -> Any:
    """What the library finds in it."""
    return tumor(Image.from_array(section, "YXS", pixel_size_um=PIXEL_SIZE_UM))


def docked(viewer: Any) -> OutlineTumor:
    panel = OutlineTumor(viewer)
    viewer.window.add_dock_widget(panel, name="Outline tumor", area="right")
    return panel


def add_section(viewer: Any, section: Any, **keywords: Any) -> Any:
    placed = {"scale": (PIXEL_SIZE_UM, PIXEL_SIZE_UM), "units": ("um", "um"), "name": "section"}
    return viewer.add_image(section, rgb=True, **{**placed, **keywords})


def outlined(viewer: Any, until: Any, section: Any, **keywords: Any) -> OutlineTumor:
    add_section(viewer, section, **keywords)
    panel = docked(viewer)
    run(panel, until)
    return panel


def run(panel: OutlineTumor, until: Any) -> None:
    panel.run_button.click()
    until(lambda: not panel.is_busy, "tumor is outlined")
    assert panel.outline is not None, panel.message.text()


def exteriors(panel: OutlineTumor) -> list[np.ndarray]:
    kinds = panel.shapes.features["kind"]
    return [np.asarray(ring) for ring, kind in zip(panel.shapes.data, kinds, strict=True) if kind == "tumor"]


def test_the_result_is_that_of_the_library(viewer, until, photograph, section, direct):
    panel = outlined(viewer, until, section)
    assert panel.options_form.values()["pixel_size_um"] == PIXEL_SIZE_UM
    drawn = exteriors(panel)
    assert len(drawn) == len(direct.regions) > 0
    for ring, region in zip(drawn, direct.regions, strict=True):
        apart = shapely.hausdorff_distance(shapely.Polygon(ring[:, ::-1]), shapely.Polygon(region.exterior))
        assert apart < 0.15
    shown = viewer.layers["section tumor probability"]
    np.testing.assert_array_equal(shown.data, direct.probability.read()[0, 0, 0])
    assert f"{direct.percent:.1f} %" in panel.summary.text()
    assert panel.table.rowCount() == len(direct.regions)
    assert panel.table.item(0, 1).value == pytest.approx(direct.regions[0].area_px * PIXEL_SIZE_UM**2)
    assert panel.table.item(0, 2).value == pytest.approx(direct.largest_diameter_um)
    assert "um" in panel.table.horizontalHeaderItem(1).text()
    photograph(viewer, "outline_tumor_drawn")


def test_an_alpha_channel_and_16_bits_change_nothing(viewer, until, section, direct):
    deep = np.concatenate([section, np.full((*section.shape[:2], 1), 255, np.uint8)], axis=-1)
    panel = outlined(viewer, until, deep.astype(np.uint16) * 257)
    assert panel.outline.percent == pytest.approx(direct.percent)


def test_a_pyramid_is_outlined_from_its_levels(viewer, until, section, direct):
    enlarged = section.repeat(4, axis=0).repeat(4, axis=1)
    read: list[tuple[int, ...]] = []

    class Finest:
        """Four times as fine as is needed; what is read of it is noted."""

        shape, dtype, ndim, size = enlarged.shape, enlarged.dtype, 3, enlarged.size

        def __getitem__(self, key: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():  # which draws
                read.append(enlarged[key].shape)
            return enlarged[key]

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise AssertionError("the finest level was read as a whole")

    add_section(viewer, [Finest(), section], multiscale=True, scale=(0.25, 0.25))
    panel = docked(viewer)
    run(panel, until)
    # At 1 um the network looks at the coarser level, which is the one of the other tests.
    assert panel.outline.percent == pytest.approx(direct.percent)
    assert panel.outline.regions[0].area_px == pytest.approx(16 * direct.regions[0].area_px, rel=1e-3)
    assert not read
    assert panel.table.item(0, 1).value == pytest.approx(direct.regions[0].area_px, rel=1e-3)


def test_a_large_probability_is_a_pyramid_computed_where_it_is_looked_at(
    viewer, until, monkeypatch, section, direct
):
    monkeypatch.setattr("napari_plugin.outline_tumor._WHOLE_UP_TO_PX", 512)
    monkeypatch.setattr("napari_plugin.outline_tumor._COARSEST_PX", 256)
    outlined(viewer, until, section)
    shown, whole = viewer.layers["section tumor probability"], direct.probability.read()[0, 0, 0]
    assert shown.multiscale
    assert not isinstance(shown.data[0], np.ndarray)
    np.testing.assert_allclose(shown.data[0][300:400, 200:250], whole[300:400, 200:250], atol=1e-6)
    coarse = np.asarray(shown.data[1])
    rows, columns = (size // 4 for size in whole.shape)
    means = whole[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse[:rows, :columns], means, atol=0.06)
    corner = (whole.shape[0] - 1, whole.shape[1] - 1)
    np.testing.assert_allclose(shown.data_to_world(corner), viewer.layers["section"].data_to_world(corner))


def test_layers_that_are_not_in_color_are_refused(viewer, section):
    viewer.add_image(section[..., 0], name="gray")
    viewer.add_labels(np.ones((8, 8), int))
    panel = docked(viewer)
    assert panel.image_layer.count() == 0
    panel.run_button.click()
    assert not panel.is_busy
    assert "no image in color" in panel.message.text()


def test_colors_of_floating_point_are_refused_with_a_sentence(viewer, until, section):
    add_section(viewer, section / 255.0)
    panel = docked(viewer)
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    assert "Save it as RGB of 8 or 16 bits" in panel.message.text()
    assert panel.outline is None


def test_without_a_pixel_size_areas_are_in_pixels_and_it_is_said(viewer, until, section):
    panel = outlined(viewer, until, section, scale=(1, 1), units=("pixel", "pixel"))
    assert panel.options_form.values()["pixel_size_um"] is None
    assert "px^2" in panel.table.horizontalHeaderItem(1).text()
    assert "pixel size is not known" in panel.message.text()


def test_on_a_turned_and_moved_layer_the_outlines_lie_on_the_tissue(viewer, until, section, direct):
    add_section(viewer, section, scale=(0.5, 0.5), rotate=30, translate=(40, -70))
    panel = docked(viewer)
    panel.options_form.set("pixel_size_um", PIXEL_SIZE_UM)
    run(panel, until)
    image = viewer.layers["section"]
    for ring, region in zip(exteriors(panel), direct.regions, strict=True):
        back = [image.world_to_data(panel.shapes.data_to_world(corner))[::-1] for corner in ring[::10]]
        distances = shapely.distance(shapely.points(back), shapely.LinearRing(region.exterior))
        assert distances.max() < 0.15
    shown = viewer.layers[-2]
    for corner in ((0, 0), (100, 500)):
        np.testing.assert_allclose(shown.data_to_world(corner), image.data_to_world(corner), atol=1e-6)


def test_a_click_in_the_table_goes_to_the_region(viewer, until, section, direct):
    panel = outlined(viewer, until, section)
    region = direct.regions[1]
    row = next(r for r in range(panel.table.rowCount()) if panel.table.item(r, 0).value == 2)
    panel.table.cellClicked.emit(row, 0)
    middle = (region.exterior.min(axis=0) + region.exterior.max(axis=0)) / 2
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle[::-1] * PIXEL_SIZE_UM, atol=1)
    selected = panel.shapes.features["region"].to_numpy()[list(panel.shapes.selected_data)]
    assert set(selected) == {2}


@pytest.mark.parametrize("name", ["outlines.geojson", "outlines.roi.zip"])
def test_what_is_exported_reads_back(viewer, until, tmp_path, section, direct, name):
    panel = outlined(viewer, until, section)
    found = read_annotations(panel.export(tmp_path / name))
    assert len(found) == len(direct.regions)
    for annotation, region in zip(found, direct.regions, strict=True):
        assert annotation.region.area_px == pytest.approx(region.area_px, rel=1e-3)
    direct_file = tmp_path / "direct.geojson"
    write_geojson(direct_file, direct.regions, pixel_size_um=PIXEL_SIZE_UM)
    if name.endswith(".geojson"):
        assert (tmp_path / name).read_text() == direct_file.read_text()


def test_corrected_outlines_are_measured_and_exported(viewer, until, photograph, tmp_path, section, direct):
    panel = outlined(viewer, until, section)
    shapes = panel.shapes
    largest = direct.regions[0].exterior
    inside = largest.mean(axis=0)[::-1]
    hole = inside + np.array([(-10, -10), (-10, 10), (10, 10), (10, -10)])
    assert filled(direct.regions[0], section.shape[:2])[tuple(hole.astype(int).T)].all()
    shapes.add(hole, shape_type="rectangle")
    apart = np.array([(2.0, 2.0), (2.0, 42.0), (32.0, 42.0), (32.0, 2.0)])
    shapes.add(apart, shape_type="rectangle")
    shapes.add(np.array([(0.0, 0.0), (9.0, 9.0)]), shape_type="line")
    panel.measure_button.click()
    regions = panel.outline.regions
    assert len(regions) == len(direct.regions) + 1
    assert regions[0].area_px == pytest.approx(direct.regions[0].area_px - 400, rel=1e-3)
    assert any(region.area_px == pytest.approx(1200, rel=1e-6) for region in regions)
    assert "no area" in panel.message.text()
    assert panel.table.rowCount() == len(regions)
    kinds = shapes.features["kind"].tolist()
    holes = [len(region.holes) for region in direct.regions]
    assert kinds.count("hole") == sum(holes) + 1
    widths = np.array(shapes.edge_width)
    assert widths[kinds.index("hole")] < widths[kinds.index("tumor")]
    read = [
        annotation.region for annotation in read_annotations(panel.export(tmp_path / "corrected.geojson"))
    ]
    assert sorted(len(region.holes) for region in read) == sorted([holes[0] + 1, *holes[1:], 0])
    photograph(viewer, "outline_tumor_corrected")


def test_what_was_deleted_is_not_exported_and_the_percentage_falls(viewer, until, tmp_path, section, direct):
    panel = outlined(viewer, until, section)
    panel.shapes.selected_data = {0}
    panel.shapes.remove_selected()
    read = read_annotations(panel.export(tmp_path / "corrected.zip"))
    assert len(read) == len(direct.regions) - 1
    assert panel.outline.percent < direct.percent


def test_nothing_changed_is_measured_as_it_was(viewer, until, section, direct):
    panel = outlined(viewer, until, section)
    panel.measure_button.click()
    assert [region.score for region in panel.outline.regions] == [region.score for region in direct.regions]


def test_measuring_again_gives_the_same_figures_for_the_same_outlines(direct):
    again = direct.with_regions(direct.regions)
    assert again.percent == direct.percent
    np.testing.assert_allclose(
        [region.score for region in again.regions], [region.score for region in direct.regions], rtol=1e-5
    )


class TestRegionsDrawn:
    """Rings of squares: x and y of a corner, and a side."""

    @staticmethod
    def areas(squares: list[tuple[float, float, float]], holes: list[bool] | None = None) -> list[float]:
        rings = [
            np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)]) for x, y, side in squares
        ]
        return sorted(region.area_px for region in regions_drawn(rings, holes or [False] * len(rings)))

    def test_that_overlap_are_one_region(self):
        assert self.areas([(0, 0, 10), (5, 0, 10)]) == [150]

    def test_one_within_another_is_a_hole_and_one_within_that_a_region(self):
        assert self.areas([(0, 0, 10), (2, 2, 6), (4, 4, 2)]) == [4, 64]

    def test_two_equal_ones_are_one_region(self):
        assert self.areas([(0, 0, 10), (0, 0, 10)]) == [100]

    def test_a_hole_that_is_dragged_across_the_border_stays_a_hole(self):
        assert self.areas([(0, 0, 10), (8, 0, 10)], [False, True]) == [80]

    def test_a_ring_that_crosses_itself_keeps_its_area(self):
        (region, other) = regions_drawn([np.array([(0, 0), (10, 10), (10, 0), (0, 10)])], [False])
        assert region.area_px + other.area_px == pytest.approx(50)

    def test_none_give_no_region(self):
        assert regions_drawn([], []) == []


def test_cancel_stops_in_the_middle(viewer, until, monkeypatch, section):
    began = threading.Event()

    def endless(image: Any, *, cancelled: Any, **_options: Any) -> None:
        began.set()
        while True:
            stop_if_cancelled(cancelled)

    monkeypatch.setattr(sys.modules[tumor.__module__], "tumor", endless)
    add_section(viewer, section)
    panel = docked(viewer)
    panel.run_button.click()
    until(began.is_set, "it has begun")
    panel.cancel_button.click()
    until(lambda: not panel.is_busy, "it has stopped")
    assert panel.outline is None
    assert len(viewer.layers) == 1


def test_a_copy_as_python_runs_and_gives_the_same(viewer, until, tmp_path, monkeypatch, section, direct):
    file = tmp_path / "section.tif"
    save_image(Image.from_array(section, "YXS", pixel_size_um=PIXEL_SIZE_UM), file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_plugin.outline_tumor.source_of", lambda layer: str(file))
    panel = outlined(viewer, until, section)
    panel.copy_python.trigger()
    exec(QApplication.clipboard().text(), {})
    assert len(read_annotations("section.geojson")) == len(direct.regions)
    panel.copy_command.trigger()
    words = QApplication.clipboard().text().split()
    assert words[:3] == ["lincei", "tumor", str(file)]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("outlined/section.geojson").is_file()


def test_a_layer_that_is_not_from_a_file_is_to_be_saved_first(viewer, until, section):
    panel = outlined(viewer, until, section)
    panel.copy_python.trigger()
    text = QApplication.clipboard().text()
    assert "save it first as section.tif" in text
    compile(text, "copied", "exec")


def test_a_real_section_is_outlined(viewer, until, photograph, real_data):
    import imageio.v3

    colors = imageio.v3.imread(real_data / "he_breast_40x" / "images" / "1008.jpg")[:1600, :2000]
    panel = outlined(viewer, until, colors, scale=(0.25, 0.25), name="1008")
    assert panel.outline.regions
    assert 0 < panel.outline.percent <= 100
    assert not panel.outline.scale_assumed
    picture = photograph(viewer, "outline_tumor")
    green = (picture[..., 1] > 200) & (picture[..., 0] < 80) & (picture[..., 2] < 80)
    assert green.sum() > 200
