"""The widget "Focus quality" in a real window: ratings, borders, table, curve, tables in files."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from scipy import ndimage

from focusqc import focus
from lincei.image import Image, open_stack, save_image
from lincei.progress import stop_if_cancelled
from napari_plugin.focus_quality import FocusQuality
from napari_plugin.patch_borders import border_levels


def points(height: int, width: int, blur_px: float = 1.0, seed: int = 0) -> NDArray[np.uint16]:
    """Return points of light on a dark ground, blurred, with noise."""
    random = np.random.default_rng(seed)
    light = np.zeros((height, width))
    light[random.random(light.shape) < 0.004] = 1
    light = ndimage.gaussian_filter(light, blur_px, mode="wrap")
    return (200 + 20000 * light / light.max() + random.normal(0, 5, light.shape)).astype(np.uint16)


def stack(blurs: tuple[float, ...] = (4.0, 1.0, 3.0)) -> NDArray[np.uint16]:
    return np.stack([points(180, 200, blur) for blur in blurs])


def docked(viewer: Any) -> FocusQuality:
    panel = FocusQuality(viewer)
    viewer.window.add_dock_widget(panel, name="Focus quality", area="right")
    return panel


def rated(viewer: Any, until: Callable[..., None], **values: Any) -> FocusQuality:
    """Return the widget after it has rated what is checked."""
    panel = docked(viewer)
    for name, value in values.items():
        form = panel.option_form if name in panel.option_form.widgets else panel.more_form
        form.set(name, value)
    panel.run_button.click()
    until(lambda: not panel.is_busy, "it is rated")
    return panel


def borders_of(viewer: Any, name: str) -> Any:
    return viewer.layers[f"{name} focus"]


def test_each_patch_has_a_border_of_its_color_and_a_row_that_goes_there(viewer, until, photograph):
    plane = points(400, 500)
    viewer.add_image(plane, name="cells")
    panel = rated(viewer, until)
    rating = focus(Image.from_array(plane, "YX"))
    shapes = borders_of(viewer, "cells")
    assert shapes._type_string == "shapes"
    assert len(shapes.data) == rating.planes[0].probabilities[..., 0].size == 30
    from focusqc.overlay import level_colors

    only = rating.planes[0]
    expected = level_colors(only.patch_levels, only.patch_certainties).reshape(-1, 3)
    np.testing.assert_allclose(shapes.edge_color[:, :3] * 255, expected, atol=0.6)
    # Lines lie inside their patches, and beside those of their neighbors.
    half = shapes.edge_width[0] / 2
    first, second = shapes.data[0], shapes.data[1]
    np.testing.assert_allclose(first.min(axis=0) - half, (-0.5, -0.5))
    assert first[:, 1].max() + half == pytest.approx(second[:, 1].min() - half)
    assert "<b>cells: in focus</b>" in panel.verdict.text()

    names = panel.patch_table.columns.names
    assert names == (
        *("row", "column", "x", "y", "predicted_level", "expected_level", "certainty", "in_focus"),
    )
    assert panel.patch_table.columns.rowCount() == 30
    column = names.index("certainty")
    panel.patch_table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
    shown = [float(line[column]) for line in panel.patch_table.texts()]
    assert shown == sorted(shown, reverse=True)
    line = next(line for line in range(30) if panel.patch_table.columns.row_at(line) == 23)
    panel.patch_table.scrollTo(panel.patch_table.model().index(line, 0))
    panel.patch_table.selectRow(line)
    assert shapes.selected_data == {23}
    # It is marked, and cannot be dragged.
    assert viewer.layers.selection.active is shapes
    assert (shapes.mode, shapes.editable) == ("pan_zoom", False)
    assert shapes._outline_shapes()[0] is not None
    row, column = divmod(23, 6)
    middle = (only.y[row] + 41.5, only.x[column] + 41.5)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle)
    photograph(viewer, "focus_patches")


def test_of_a_stack_the_sharpest_plane_is_found_and_gone_to(viewer, until, photograph):
    pixels = stack((5.0, 3.0, 1.0, 2.0, 4.0))
    viewer.add_image(pixels, name="stack", scale=(2, 0.5, 0.5), units="um")
    viewer.dims.set_point(0, 0.0)
    panel = rated(viewer, until, na=0.5)
    rating = focus(Image.from_array(pixels, "ZYX", pixel_size_um=0.5), na=0.5)
    assert rating.sharpest == {(0, 0): 2}
    assert "The sharpest plane is z = 2" in panel.verdict.text()
    assert "um from focus" in panel.verdict.text()
    shapes = borders_of(viewer, "stack")
    assert len(shapes.data) == 5 * 9
    assert [int(data[0, 0]) for data in shapes.data] == np.repeat(range(5), 9).tolist()
    x, y = panel.curve.series["expected level"]
    np.testing.assert_array_equal(x, range(5))
    np.testing.assert_allclose(y, [plane.expected_level for plane in rating.planes], atol=1e-4)
    assert "certainty" in panel.curve.told_at(
        panel.curve._place(2, y[2], panel.curve._frame(), panel.curve._limits())
    )
    panel.sharpest_button.click()
    assert viewer.dims.point[0] == 4.0
    # The table follows the slider, or shows all.
    assert panel.patch_table.columns.rowCount() == 9
    assert {line[0] for line in panel.patch_table.texts()} == {"2"}
    panel.only_shown.setChecked(False)
    assert panel.patch_table.columns.rowCount() == 45
    panel.patch_table.row_chosen.emit(40)
    assert viewer.dims.point[0] == 8.0
    panel.curve.clicked.emit(1.0)
    assert viewer.dims.point[0] == 2.0
    assert "In view: z = 1" in panel.verdict.text()
    photograph(viewer, "focus_stack")
    viewer.theme = "light"
    photograph(viewer, "focus_stack_light")


def test_the_sharpest_plane_of_real_beads_is_that_of_the_command(viewer, until, photograph, real_data):
    files = sorted((real_data / "beads_zstack").glob("E07_s1_*.tif"))
    image = open_stack(files)
    pixels = image.read()[0, 0]
    viewer.add_image(pixels, name="beads")
    panel = rated(viewer, until)
    sharpest = focus(image.with_(data=pixels[None, None])).sharpest[0, 0]
    panel.sharpest_button.click()
    assert viewer.dims.current_step[0] == sharpest
    assert f"The sharpest plane is z = {sharpest} " in panel.verdict.text()
    photograph(viewer, "focus_beads")


def test_tables_are_those_of_the_command(viewer, until, tmp_path, real_data, photograph):
    names = ("sharp_a02_s1.tif", "defocused_c06_s2.tif")
    files = [real_data / "bbbc006_focus" / name for name in names]
    for file in files:
        viewer.open(str(file), plugin="napari", name=file.stem)
    panel = docked(viewer)
    panel.layer_list.check(panel.layer_list.offered)
    panel.run_button.click()
    until(lambda: not panel.is_busy, "both are rated")
    verdicts = panel.image_table.columns.names.index("in_focus")
    assert [line[verdicts] for line in panel.image_table.texts()] == ["yes", "no"]
    panel.image_table.row_chosen.emit(1)
    assert "defocused_c06_s2: out of focus" in panel.verdict.text()
    photograph(viewer, "focus_two_images")
    panel.export(tmp_path / "own")
    until(lambda: not panel.is_busy, "tables are written")
    command = panel.repetition().command  # type: ignore[union-attr]
    assert command == f"lincei focus {files[0]} {files[1]} --out rated"
    words = [sys.executable, "-m", "lincei", *command.split()[1:], "--no-overlays"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    for name in ("images.csv", "patches.csv", "exclude.csv"):
        assert (tmp_path / "own" / name).read_text() == (tmp_path / "rated" / name).read_text()


def test_the_python_that_is_copied_gives_the_same(viewer, until, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = points(180, 260)
    save_image(Image.from_array(pixels, "YX", name="film"), tmp_path / "film.tif")
    viewer.open(str(tmp_path / "film.tif"), plugin="napari", name="film")
    viewer.add_image(stack(), name="film/1")  # of no file
    panel = docked(viewer)
    panel.layer_list.check(panel.layer_list.offered)
    panel.axes.setCurrentText("TYX")
    panel.more_form.set("tile_count", (2, 1))
    panel.run_button.click()
    until(lambda: not panel.is_busy, "both are rated")
    repetition = panel.repetition()
    assert repetition is not None
    assert "# Save the layer 'film/1' as film-1.tif first" in repetition.python
    import tifffile

    # Else three planes become colors, which tifffile warns of.
    tifffile.imwrite(tmp_path / "film-1.tif", stack(), photometric="minisblack")
    exec(repetition.python, {})
    panel.export(tmp_path / "own")
    until(lambda: not panel.is_busy, "tables are written")
    import pandas as pd

    scripted = pd.concat([pd.read_csv(tmp_path / f"{name} patches.csv") for name in ("film", "film-1")])
    own = pd.read_csv(tmp_path / "own" / "patches.csv")
    assert len(own) == 2 + 6
    assert own["time"].tolist() == scripted["time"].tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(own["expected_level"], scripted["expected_level"], rtol=1e-4)
    assert repetition.command.endswith("film.tif film-1.tif --tile-count 2,1 --out rated")
    assert capsys.readouterr().out.count("film") == 4


def test_a_blank_image_is_uncertain(viewer, until):
    viewer.add_image(np.full((100, 120), 7, np.uint8), name="blank")
    panel = rated(viewer, until)
    assert "<b>blank: uncertain</b>" in panel.verdict.text()
    assert "constant: every pixel is 7" in panel.verdict.text()


def test_a_stack_without_content_has_no_sharpest_plane(viewer, until):
    viewer.add_image(np.zeros((3, 90, 90), np.uint8), name="dark")
    panel = rated(viewer, until)
    panel.sharpest_button.click()
    assert "no plane of this stack shows its focus" in panel.message.text()


def test_images_alone_are_offered_and_borders_are_none(viewer, until):
    viewer.add_image(points(90, 90), name="cells")
    viewer.add_labels(np.zeros((90, 90), int), name="labels")
    viewer.add_points(np.zeros((1, 2)), name="points")
    panel = docked(viewer)
    assert [layer.name for layer in panel.layer_list.offered] == ["cells"]
    viewer.layers.clear()
    panel.run_button.click()
    assert "no image is checked" in panel.message.text()


@pytest.mark.parametrize(
    ("pixels", "keywords", "planes"),
    [
        (np.where(np.eye(100) > 0, np.nan, points(100, 100).astype(np.float32)), {}, 1),
        (np.ones((1, 1), np.uint16), {}, 1),
        (np.stack([points(90, 100)] * 4).reshape(2, 2, 1, 90, 100), {}, 4),
        ([points(200, 200), points(200, 200)[::2, ::2]], {"multiscale": True}, 1),
    ],
    ids=["nan", "1x1", "5-D", "pyramid"],
)
def test_odd_layers_are_rated(viewer, until, pixels, keywords, planes):
    viewer.add_image(pixels, name="odd", **keywords)
    panel = rated(viewer, until)
    assert "<b>odd" in panel.verdict.text(), panel.message.text()
    assert len(panel._rated[0].rating.planes) == planes


def test_a_stained_section_in_color_is_rated_as_the_command_rates_it(viewer, until, photograph):
    # Dark nuclei on a bright ground, as large as a camera's picture.
    stain = points(768, 1024, blur_px=4.0) / 65535.0
    pixels = np.stack([235 - 400 * stain, 225 - 550 * stain, 240 - 250 * stain], axis=-1).astype(np.uint8)
    viewer.add_image(pixels, name="section", rgb=True)
    panel = rated(viewer, until)
    expected = focus(Image.from_array(pixels, "YXS"))
    ((plane,), (wanted,)) = panel._rated[0].rating.planes, expected.planes
    assert panel._rated[0].rating.provenance["model"] == expected.provenance["model"]
    np.testing.assert_allclose(plane.probabilities, wanted.probabilities, atol=1e-6)
    assert len(borders_of(viewer, "section").data) == wanted.probabilities[..., 0].size == 10 * 13
    photograph(viewer, "focus_section")


def test_borders_lie_on_an_image_that_is_moved_and_turned(viewer, until):
    turned = viewer.add_image(
        points(200, 300), name="turned", scale=(0.5, 0.5), rotate=30, translate=(100, -40)
    )
    panel = rated(viewer, until)
    shapes = borders_of(viewer, "turned")
    corner = shapes.data[0].min(axis=0)
    np.testing.assert_allclose(shapes.data_to_world(corner), turned.data_to_world(corner))
    panel.patch_table.row_chosen.emit(5)
    middle = turned.data_to_world((84 + 41.5, 84 + 41.5))
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle)


def test_many_patches_are_an_image_that_is_drawn_where_it_is_seen(viewer, until, photograph):
    pixels = np.tile(points(420, 420), (15, 15))  # 75 times 75 patches
    image = viewer.add_image(pixels, name="slide", scale=(0.5, 0.5), translate=(10, 20))
    panel = rated(viewer, until)
    borders = borders_of(viewer, "slide")
    assert panel.patch_table.columns.rowCount() == 75 * 75 > 5000
    assert borders._type_string == "image"
    assert borders.rgb
    assert borders.multiscale
    assert [layer.name for layer in panel.layer_list.offered] == ["slide"]
    np.testing.assert_allclose(borders.data_to_world((7, 9)), image.data_to_world((7, 9)))
    panel.patch_table.row_chosen.emit(75 * 30 + 40)
    np.testing.assert_allclose(
        viewer.scene.camera.center[-2:], image.data_to_world((84 * 30 + 41.5, 84 * 40 + 41.5))
    )
    photograph(viewer, "focus_slide")
    viewer.reset_view()
    photograph(viewer, "focus_slide_whole")


def test_the_image_of_borders_has_the_colors_of_the_overlay():
    pixels = points(200, 300)
    rating = focus(Image.from_array(pixels, "YX"))
    drawn = border_levels(rating, "YX", pixels.shape)[0][...]
    overlay = rating.overlay()[:200]
    border = drawn[..., 3] == 255
    np.testing.assert_array_equal(drawn[border][:, :3], overlay[border])
    assert 0.05 < border.mean() < 0.3
    (part,) = border_levels(rating, "YX", pixels.shape)
    np.testing.assert_array_equal(part[10:90, 20, :3], drawn[10:90, 20, :3])


def test_cancel_leaves_no_borders(viewer, until, monkeypatch):
    began = threading.Event()

    def endless(*_arguments: Any, cancelled: Any, **_keywords: Any) -> None:
        began.set()
        while True:
            stop_if_cancelled(cancelled)

    monkeypatch.setattr("focusqc.focus_image.focus", endless)
    monkeypatch.setattr("focusqc.focus", endless, raising=False)
    viewer.add_image(points(90, 90), name="cells")
    panel = docked(viewer)
    panel.run_button.click()
    until(began.is_set, "it has begun")
    panel.cancel_button.click()
    until(lambda: not panel.is_busy, "it has stopped")
    assert panel.message.text().startswith("Stopped.")
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_what_is_said_names_the_form_and_not_the_flags(viewer, until):
    viewer.add_image(points(90, 90), name="cells")
    panel = rated(viewer, until, na=1.3)
    assert "“Refractive index”" in panel.message.text()
    assert "--" not in panel.message.text()


def test_one_image_that_fails_does_not_hold_up_the_others(viewer, until):
    viewer.add_image(np.full((90, 90), np.nan, np.float32), name="nothing")
    viewer.add_image(points(90, 90), name="cells")
    panel = docked(viewer)
    panel.layer_list.check(panel.layer_list.offered)
    panel.run_button.click()
    until(lambda: not panel.is_busy, "one is rated")
    assert "nothing: no pixel of the plane" in panel.message.text()
    assert "<b>cells: in focus</b>" in panel.verdict.text()
    # Rated again, the borders are replaced.
    panel.layer_list.check([viewer.layers["cells"]])
    panel.run_button.click()
    until(lambda: not panel.is_busy, "it is rated again")
    assert [layer.name for layer in viewer.layers] == ["nothing", "cells", "cells focus"]


def test_a_layer_that_was_removed_is_told_of(viewer, until):
    layer = viewer.add_image(stack(), name="stack")
    panel = rated(viewer, until)
    viewer.layers.remove(layer)
    panel.sharpest_button.click()
    assert "no longer in the viewer" in panel.message.text()


def test_channels_are_named_where_the_layer_has_them(viewer, until):
    viewer.add_image(stack(), name="channels")
    panel = docked(viewer)
    channels = panel.option_form.widgets["channel"].native
    assert channels.isHidden()
    panel.axes.setCurrentText("CYX")
    assert not channels.isHidden()
    panel.option_form.set("channel", ("1",))
    panel.run_button.click()
    until(lambda: not panel.is_busy, "it is rated")
    (plane,) = panel._rated[0].rating.planes
    assert plane.channel == 1
    assert {int(data[0, 0]) for data in borders_of(viewer, "channels").data} == {1}
