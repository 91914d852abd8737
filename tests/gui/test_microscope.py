"""The augmented-reality microscope in a real window, on a small simulated slide."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from arm_overlay.cameras import new_camera
from arm_overlay.loop_status import LoopStatus
from arm_overlay.settings import ArmOptions
from lincei.errors import LinceiError
from napari_plugin.live_layers import HEAT_MAP, OUTLINE, PICTURE
from napari_plugin.microscope import Microscope

Until = Callable[..., None]

# Small, and drawn beforehand: a busy machine shall not need minutes for the slide.
SLIDE = "simulated:size=320x240,area_um=100,fps=10,rendered=8,speed=0.05"
NO_TURRET = SLIDE + ",reports_objective=no"
UNPLUGGED = SLIDE + ",unplug_after=4,unplugged_s=1"


@pytest.fixture(scope="module")
def _drawn() -> None:
    """Draw the slide before: opening a camera may take no longer than a minute, and a machine may be busy."""
    for spec in (SLIDE, NO_TURRET, UNPLUGGED):
        camera: Any = new_camera(spec)
        camera.prepare()


@pytest.fixture
def panel(viewer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Microscope:
    """The widget, docked, with the slide chosen; it looks for no cameras by itself."""
    monkeypatch.setattr(Microscope, "look", lambda self: None)
    monkeypatch.setenv("LINCEI_ARM", str(tmp_path / "arm"))
    made = Microscope(viewer)
    viewer.window.add_dock_widget(made, name="Augmented-reality microscope")
    made.camera.setEditText(SLIDE)
    made.options_form.widgets["focus_gate"].value = False
    made.folder.setText(str(tmp_path / "records"))
    return made


def started(panel: Microscope, until: Until) -> None:
    """Press Start and wait for a frame."""
    before = panel.view.shown
    panel.run_button.click()
    until(lambda: panel.view.shown > before + 1 or not panel.is_busy, "a frame is shown")
    assert panel.is_live, panel.message.text()


def stopped(panel: Microscope, until: Until) -> None:
    """Press Stop and wait for the end."""
    panel.cancel_button.click()
    until(lambda: not panel.is_busy, "it has stopped")


def status(panel: Microscope) -> LoopStatus:
    """Return how the running loop stands."""
    assert panel.session is not None
    assert panel.session.parts is not None
    return panel.session.parts.loop.status()


def border(layer: Any) -> Any:
    """Return where a layer's pixels begin and end, y and x, in um."""
    half = np.asarray(layer.scale) / 2
    return np.asarray(layer.extent.world) + np.stack([-half, half])


def arm_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("arm ")]


@pytest.mark.usefixtures("_drawn")
def test_the_slide_is_seen_and_steered_and_recorded(
    panel: Microscope, viewer: Any, until: Until, photograph: Any, tmp_path: Path
) -> None:
    started(panel, until)
    picture = viewer.layers[PICTURE]
    assert picture.rgb
    assert picture.data.shape == (240, 320, 3)
    assert picture.data.std() > 5
    before = picture.data.copy()
    until(lambda: not np.array_equal(picture.data, before), "the picture changes")

    until(lambda: OUTLINE in viewer.layers and viewer.layers[OUTLINE].data.any(), "tumor is outlined")
    outline = viewer.layers[OUTLINE]
    photograph(viewer, "microscope-outline")
    # Not only the array: what is drawn follows it.
    drawn = viewer.screenshot(canvas_only=True, flash=False)
    until(
        lambda: not np.array_equal(viewer.screenshot(canvas_only=True, flash=False), drawn),
        "it is drawn anew",
    )
    # A camera's pixel at 20x; the microscope tells.
    assert picture.scale[0] == pytest.approx(0.586)
    assert str(picture.units[0]) == "micrometer"
    assert outline.metadata["lincei"]["objective"] == "20x"
    until(lambda: "frames/s" in panel.rates.text() and "inference" in panel.stages.text(), "times are told")

    panel.options_form.widgets["mode"].value = "heatmap"
    until(lambda: HEAT_MAP in viewer.layers and viewer.layers[HEAT_MAP].data.any(), "the heat map is shown")
    until(lambda: not outline.data.any(), "the outline is gone")
    # It covers the frame: both begin and end at the same places, half a pixel beyond the middles of theirs.
    assert np.allclose(border(picture), border(viewer.layers[HEAT_MAP]))
    photograph(viewer, "microscope-heat-map")
    panel.options_form.widgets["mode"].value = "text"
    until(lambda: outline.data.any() and not viewer.layers[HEAT_MAP].data.any(), "text is shown")
    panel.options_form.widgets["mode"].value = "outline"

    # No probability is above it: nothing is outlined.
    panel.threshold.setValue(99)
    until(lambda: status(panel).threshold == 0.99, "the threshold is set")
    assert not panel.own_threshold.isChecked()
    panel.own_threshold.setChecked(True)
    until(lambda: status(panel).threshold is None, "it is the model's own again")

    until(lambda: outline.data.any(), "tumor is outlined again")
    panel.hide_button.click()
    until(lambda: not outline.data.any(), "the overlay is hidden")
    assert "hidden" in panel.state.text()
    panel.hide_button.click()
    until(lambda: outline.data.any(), "it is shown again")

    panel.comment.setText("margin 1")
    panel.snapshot_button.click()
    records = tmp_path / "records"
    until(lambda: "snapshot saved in" in panel.log.toPlainText(), "the snapshot is saved")
    (snapshot,) = records.iterdir()
    assert any("margin 1" in path.read_text("utf-8") for path in snapshot.glob("*.json"))

    panel.record_button.click()
    until(lambda: "Recording to" in panel.state.text(), "it records")
    until(lambda: panel.view.shown % 3 == 0, "some frames are recorded")
    panel.record_button.click()
    until(lambda: "recorded " in panel.log.toPlainText(), "the record is closed")
    (session,) = records.glob("session_*")
    lines = [path.read_text("utf-8") for path in session.rglob("*.jsonl")]
    assert lines
    assert all(json.loads(line) for text in lines for line in text.splitlines())

    stopped(panel, until)
    assert panel.message.text() == "Stopped. The camera is free."
    assert not outline.data.any()
    until(lambda: not arm_threads(), "the loop's threads have ended")

    # The last frame stays, and the next start uses its layer.
    panel.options_form.widgets["objective"].value = "10x"
    panel.camera.setEditText(NO_TURRET)
    started(panel, until)
    assert viewer.layers[PICTURE] is picture
    until(lambda: "Objective: 10x" in panel.state.text(), "the objective is used")
    panel.options_form.widgets["objective"].value = "20x"
    until(lambda: "Objective: 20x" in panel.state.text(), "the objective is changed")
    panel.copy_command.trigger()
    words = shlex.split(QApplication.clipboard().text())
    assert words[:2] == ["lincei", "arm"]
    assert words[words.index("--objective") + 1] == "20x"
    # Closing the widget while it runs frees the camera at once.
    viewer.window.remove_dock_widget(panel)
    until(lambda: not arm_threads(), "the camera is free")


def test_a_camera_that_cannot_be_opened_is_a_sentence_and_the_next_one_starts(
    panel: Microscope, until: Until
) -> None:
    for camera, sentence in (
        ("webcam:1", "there is no kind of camera 'webcam'"),
        ("simulated:sise=3", "has no setting 'sise'"),
        ("", "no camera is chosen"),
    ):
        panel.camera.setEditText(camera)
        panel.run_button.click()
        until(lambda: not panel.is_busy, "it has failed")
        assert sentence in panel.message.text()
        assert panel.run_button.isEnabled()
    assert not arm_threads()


@pytest.mark.usefixtures("_drawn")
def test_a_camera_that_stalls_is_told_and_its_outline_goes(
    panel: Microscope, viewer: Any, until: Until
) -> None:
    panel.camera.setEditText(UNPLUGGED)
    started(panel, until)
    until(lambda: any("unplug" in line for line in panel.log.toPlainText().splitlines()), "it is told")
    until(lambda: "frames come again" in panel.log.toPlainText(), "it is connected again")
    before = panel.view.shown
    until(lambda: panel.view.shown > before, "frames are shown again")


@pytest.mark.usefixtures("_drawn")
def test_what_cannot_be_shown_ends_it_with_a_sentence(
    panel: Microscope, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(panel, until)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no texture")

    monkeypatch.setattr(panel.view, "show", broken)
    until(lambda: not panel.is_busy, "it has ended")
    assert "ValueError: no texture" in panel.message.text()
    until(lambda: not arm_threads(), "the camera is free")


def test_frames_are_drawn_without_the_layer_list_being_painted(viewer: Any, until: Until) -> None:
    from arm_overlay.developing import NEUTRAL
    from arm_overlay.frames import Frame
    from arm_overlay.overlay import Overlay
    from napari_plugin.live_layers import LiveLayers

    layers = LiveLayers(viewer)
    changes: list[str] = []

    def show(value: int) -> None:
        frame = Frame(np.full((240, 320, 3), value, np.uint8), 0.0, value)
        layers.show(frame, Overlay(0, 0.0, (320, 240)), NEUTRAL, dark=False, time_s=0.0)

    def middle() -> int:
        picture = viewer.screenshot(canvas_only=True, flash=False)
        return int(picture[picture.shape[0] // 2, picture.shape[1] // 2, 0])

    show(40)
    until(lambda: abs(middle() - 40) <= 1, "the first is drawn")
    viewer.layers.events.connect(lambda event: changes.append(event.type))
    show(200)
    until(lambda: abs(middle() - 200) <= 1, "the next is drawn")
    assert not changes
    # One that is not seen is not drawn, and has the newest frame when it is seen again.
    viewer.layers[PICTURE].visible = False
    show(90)
    viewer.layers[PICTURE].visible = True
    until(lambda: abs(middle() - 90) <= 1, "the newest is drawn")


def test_the_picture_is_halved_until_it_is_quick_to_show(viewer: Any) -> None:
    from arm_overlay.developing import NEUTRAL
    from arm_overlay.frames import Frame
    from arm_overlay.overlay import Overlay, Region
    from napari_plugin.live_layers import LiveLayers

    layers = LiveLayers(viewer)
    frame = Frame(np.full((1200, 1920, 3), 200, np.uint8), 0.0, 0)
    square = np.array([[400, 200], [800, 200], [800, 600], [400, 600]], np.float32)
    overlay = Overlay(0, 0.0, (1920, 1200), regions=(Region(square),), pixel_size_um=0.5)

    def edges() -> tuple[int, ...]:
        """Return where the outline lies, in pixels of the camera."""
        rows, columns = np.nonzero(viewer.layers[OUTLINE].data > 128)
        step = 1920 / viewer.layers[OUTLINE].data.shape[1]
        return tuple(round(float(end) * step) for axis in (columns, rows) for end in (axis.min(), axis.max()))

    layers.show(frame, overlay, NEUTRAL, dark=False, time_s=0.0)
    assert viewer.layers[PICTURE].data.shape == (600, 960, 3)
    halved, extent = edges(), viewer.layers[PICTURE].extent.world
    assert np.allclose(halved, (400, 800, 200, 600), atol=8)
    layers.full_resolution = True
    layers.show(frame, overlay, NEUTRAL, dark=False, time_s=0.0)
    assert viewer.layers[PICTURE].data.shape == (1200, 1920, 3)
    assert np.allclose(edges(), halved, atol=8)
    # The pictures cover the same place, to half a pixel.
    assert np.allclose(viewer.layers[PICTURE].extent.world, extent, atol=0.51)
    # Who removes a layer does not want it.
    viewer.layers.remove(OUTLINE)
    layers.show(frame, overlay, NEUTRAL, dark=False, time_s=0.0)
    assert OUTLINE not in viewer.layers
    layers.begin()
    layers.show(frame, overlay, NEUTRAL, dark=False, time_s=0.0)
    assert viewer.layers[OUTLINE].data.any()


def test_only_displays_that_are_not_the_operators_own_are_offered(panel: Microscope) -> None:
    from arm_overlay.cameras import CameraInfo
    from arm_overlay.displays import Monitor

    own = Monitor("HDMI-1", "", "", "", (1920, 1080), (0, 0), 60.0, primary=True)
    mirror = Monitor("HDMI-2", "", "", "", (1920, 1080), (0, 0), 60.0, primary=False, mirrors_primary=True)
    eyepiece = Monitor("DP-1", "", "", "", (1280, 720), (1920, 0), 60.0, primary=False)
    panel._take_found(([CameraInfo("usb:0", "webcam")], [own, mirror, eyepiece], ["no driver"]))
    offered = [panel.display.itemData(index) for index in range(panel.display.count())]
    assert offered == ["none", "DP-1"]
    assert panel.camera_spec == SLIDE  # what was typed stays
    panel.camera.setCurrentIndex(1)
    assert panel.camera_spec == "usb:0"
    assert not panel.align_button.isEnabled()
    panel.display.setCurrentIndex(1)
    assert panel.align_button.isEnabled()
    with pytest.raises(LinceiError, match="no objective is set"):
        panel.align_command("manual")
    panel.options_form.widgets["objective"].value = "20x"
    assert panel.align_command("manual") == shlex.split(
        "arm align --camera usb:0 --display DP-1 --objective 20x --method manual"
    )
    options = panel.options()
    assert isinstance(options, ArmOptions)
    assert (options.display, options.objective, options.focus_gate) == ("DP-1", "20x", False)
