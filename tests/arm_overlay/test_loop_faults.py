"""What the loop does when camera, model, display or disk fail: dark, with the reason, and going on."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loop_stand_ins import (
    Faults,
    StandInCamera,
    StandInDisplay,
    StandInLive,
    loop_threads,
    wait_until,
)
from tiny_tumor_models import write_tiny_model

import arm_overlay.live
from arm_overlay import connection, recording
from arm_overlay.cameras import CameraError
from arm_overlay.frames import Frame
from arm_overlay.live import LiveOutline
from arm_overlay.loop import RECONNECT_EVERY_S, Loop
from arm_overlay.options import LiveOptions
from arm_overlay.overlay import Overlay
from arm_overlay.recording import LOG_FILE, Records
from lincei.errors import LinceiError

Running = tuple[Loop, Faults, StandInDisplay, StandInLive]


@pytest.fixture
def running() -> Iterator[Running]:
    """Return a loop that shows overlays, and what can be made to fail in it."""
    faults, display, live = Faults(), StandInDisplay(), StandInLive()
    loop = Loop(lambda: StandInCamera(faults), live, display)
    loop.start()
    wait_until(lambda: display.shown, "an overlay")
    yield loop, faults, display, live
    faults.released.set()
    live.answers.set()
    loop.stop()
    wait_until(lambda: not loop_threads(), "the end of all threads")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give drivers that hang less time than usual, so that the tests are quick."""
    monkeypatch.setattr(connection, "HUNG_GRAB_S", 0.05)
    monkeypatch.setattr(connection, "HUNG_OPEN_S", 0.3)


def events(loop: Loop, source: str) -> list[str]:
    """Return what happened, of one source."""
    return [event.text for event in loop.status().events if event.source == source]


def lit_again(loop: Loop, display: StandInDisplay) -> None:
    """Wait until overlays are shown again and nothing is wrong."""
    lit = len(display.shown)
    wait_until(lambda: len(display.shown) > lit, "an overlay after the fault")
    wait_until(lambda: not loop.status().blank_reason, "no reason for darkness")
    assert not loop.status().camera_trouble


def test_an_unplugged_camera_darkens_the_eyepiece_and_is_connected_again_by_itself(running: Running) -> None:
    loop, faults, display, _ = running
    faults.open_error = faults.grab_error = CameraError("the camera was unplugged", "basler 1")
    wait_until(lambda: display.dark and loop.status().camera_trouble, "darkness and its reason")
    assert loop.status().blank_reason == "basler 1: the camera was unplugged."
    wait_until(lambda: faults.opened == 1 and not loop_threads().count("arm camera"), "the failed attempt")
    faults.open_error = faults.grab_error = None
    lit_again(loop, display)
    assert faults.opened == 2
    # Each reason is told once, however often connecting failed.
    assert events(loop, "camera") == [
        "connected to stand-in camera",
        "basler 1: the camera was unplugged.",
        "frames come again from stand-in camera",
    ]


def test_attempts_to_connect_follow_one_another_within_two_seconds(running: Running) -> None:
    loop, faults, _, _ = running
    attempts: list[float] = []

    class Counting(StandInCamera):
        def open(self) -> None:
            attempts.append(time.monotonic())
            super().open()

    loop._new_camera = lambda: Counting(faults)
    faults.open_error = faults.grab_error = CameraError("unplugged", "usb:0")
    wait_until(lambda: len(attempts) >= 3, "three attempts")
    assert RECONNECT_EVERY_S <= 1.0
    assert min(np.diff(attempts)) >= 0.9 * RECONNECT_EVERY_S


def test_a_camera_that_stalls_is_noticed_when_the_next_frame_is_overdue(running: Running) -> None:
    loop, faults, display, _ = running
    faults.stalls.set()
    wait_until(lambda: loop.status().blank_reason == "the camera sends no frames", "the reason")
    assert display.dark
    last_s = display.shown[-1].frame_time_s
    noticed_s = next(e.time_s for e in loop.status().events if e.text == "the camera sends no frames")
    assert noticed_s - last_s > 0.2
    # When nothing comes for longer it is opened anew.
    wait_until(lambda: faults.opened >= 2, "another connection")
    faults.stalls.clear()
    lit_again(loop, display)


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_hangs_is_left_to_itself_and_another_connection_made(running: Running) -> None:
    loop, faults, display, _ = running
    faults.hangs_in = {"grab", "close"}
    reason = "the camera's driver does not answer"
    wait_until(lambda: loop.status().blank_reason == reason, "the reason")
    assert display.dark
    faults.hangs_in = set()
    lit_again(loop, display)
    # The thread that hung comes back one day; what it brings belongs to no connection any more.
    faults.released.set()
    wait_until(lambda: loop_threads().count("arm camera") == 1, "one camera thread")
    lit_again(loop, display)


@pytest.mark.usefixtures("impatient")
def test_not_ever_more_threads_are_left_to_a_driver_that_hangs(running: Running) -> None:
    loop, faults, _, _ = running
    faults.hangs_in = {"open", "grab"}
    wait_until(lambda: loop_threads().count("arm camera") == 3, "three threads that hang")
    time.sleep(4 * (RECONNECT_EVERY_S + connection.HUNG_OPEN_S) / 2)
    assert loop_threads().count("arm camera") == 3
    faults.hangs_in = set()
    faults.released.set()
    wait_until(lambda: not loop.status().camera_trouble, "frames again")


def test_the_loop_stops_quickly_while_the_driver_hangs(running: Running) -> None:
    loop, faults, display, _ = running
    faults.hangs_in = {"grab", "close"}
    began_s = time.monotonic()
    loop.stop()
    assert time.monotonic() - began_s < 10  # 2 s undisturbed
    assert display.closed


def test_a_model_that_fails_darkens_the_eyepiece_and_is_tried_again(running: Running) -> None:
    loop, _, display, live = running
    live.error = ValueError("the network wants 3 channels")
    wait_until(lambda: display.dark and loop.status().model_trouble, "darkness and its reason")
    frames = loop.status().frames_out
    wait_until(lambda: loop.status().frames_out >= frames + 2, "more attempts")
    assert loop.status().blank_reason == "model error: ValueError: the network wants 3 channels"
    live.error = None
    lit_again(loop, display)
    assert events(loop, "model") == [
        "ValueError: the network wants 3 channels",
        "the model answers again",
    ]


def test_an_error_that_names_the_frame_is_one_trouble_and_not_one_for_each_frame(running: Running) -> None:
    loop, _, _, live = running

    def step(frame: Frame) -> Overlay:
        raise LinceiError("the camera is monochrome", f"frame {frame.number}", "Use a color camera.")

    live.step = step  # type: ignore[method-assign]
    frames = loop.status().frames_out
    wait_until(lambda: loop.status().frames_out >= frames + 3, "three failures")
    assert events(loop, "model") == ["the camera is monochrome. Use a color camera."]


def test_a_network_that_fails_within_the_real_outline_is_told_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_tiny_model(tmp_path / "tiny")
    display = StandInDisplay()
    options = LiveOptions(model=str(model.folder), focus_gate=False, smallest_um=0)
    texture = np.random.default_rng(0).integers(150, 250, (128, 192, 3), np.uint8)

    class Still(StandInCamera):
        def grab(self, timeout_s: float = 1.0) -> Frame:
            return replace(super().grab(timeout_s), pixels=texture)

    def still() -> StandInCamera:
        return Still(size_px=(192, 128), objective="20x")

    with LiveOutline(options) as live, Loop(still, live, display) as loop:
        wait_until(lambda: display.shown, "an overlay")

        def fail(*_: object) -> Any:
            raise RuntimeError("the driver was reset")

        with monkeypatch.context() as patch:
            patch.setattr(arm_overlay.live, "_answer", fail)
            reason = "model error: the driver was reset"
            wait_until(lambda: loop.status().model_trouble == reason, "the reason")
            wait_until(lambda: display.dark, "darkness")
        lit_again(loop, display)
        wait_until(lambda: not loop.status().model_trouble, "no trouble")
        assert events(loop, "model")[-1] == "the model answers again"


def test_a_model_that_hangs_is_said_to(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, _, display, live = running
    live.answers.clear()
    wait_until(lambda: loop.status().model_trouble == "the model does not answer", "the reason")
    assert display.dark
    assert loop.status().blank_reason == "the model does not answer"
    live.answers.set()
    lit_again(loop, display)
    assert not loop.status().model_trouble


def test_after_an_interruption_the_display_waits_no_longer_for_an_overlay_than_before() -> None:
    display, live = StandInDisplay(), StandInLive()
    with Loop(lambda: StandInCamera(fps=5), live, display) as loop:
        wait_until(lambda: len(display.shown) >= 2, "overlays")
        live.answers.clear()
        wait_until(lambda: loop.status().model_trouble, "the reason")
        time.sleep(1.5)
        before = len(display.intervals_s)
        live.answers.set()
        wait_until(lambda: len(display.intervals_s) > before + 2, "overlays again")
        # With the interruption averaged in it would be about a second.
        assert max(display.intervals_s[before:]) < 0.5


def test_a_display_that_fails_is_told_and_the_operator_still_sees(running: Running) -> None:
    loop, _, display, _ = running
    display.error = LinceiError("the overlay cannot be sent to the display")
    wait_until(lambda: loop.status().display_trouble, "the reason")
    frames = loop.status().frames_out
    wait_until(lambda: loop.status().frames_out > frames + 5, "more frames")
    latest = loop.latest()
    assert latest is not None
    assert latest[1].frame_number > display.shown[-1].frame_number
    display.error = None
    lit_again(loop, display)
    wait_until(lambda: not loop.status().display_trouble, "no trouble")
    assert events(loop, "display") == [
        "the overlay cannot be sent to the display.",
        "the display works again",
    ]


def test_a_display_that_reports_trouble_is_told_until_it_is_well(running: Running) -> None:
    loop, _, display, _ = running
    display.trouble = "the monitor HDMI-2 is not there"
    wait_until(lambda: loop.status().display_trouble == display.trouble, "the reason")
    display.trouble = ""
    wait_until(lambda: not loop.status().display_trouble, "no trouble")


def test_frames_that_change_their_size_under_way_go_on(running: Running) -> None:
    loop, faults, display, _ = running
    loop._new_camera = lambda: StandInCamera(faults, size_px=(64, 48))
    faults.grab_error = CameraError("the camera was set to another size", "usb:0")
    wait_until(lambda: loop.status().camera_trouble, "the reason")
    faults.grab_error = None
    wait_until(lambda: display.shown[-1].frame_size_px == (64, 48), "frames of the new size")


# -- the disk -----------------------------------------------------------------------------------------------


@contextmanager
def recording_loop(folder: Path) -> Iterator[tuple[Loop, StandInDisplay]]:
    display = StandInDisplay()
    records = Records(folder, lambda frame: np.asarray(frame.pixels))
    with Loop(StandInCamera, StandInLive(), display, records=records) as loop:
        wait_until(lambda: display.shown, "an overlay")
        loop.start_recording()
        wait_until(lambda: _written(folder) >= 3, "three recorded frames")
        yield loop, display


def _written(folder: Path) -> int:
    (log,) = folder.glob(f"*/{LOG_FILE}")
    return log.read_text().count('"kind":"frame"')


def _full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails", ["append", "_write"])
def test_a_full_disk_stops_the_recording_and_nothing_else(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording_loop(tmp_path) as (loop, display):
        owner = recording._ZarrPixels if fails == "append" else recording._Session
        monkeypatch.setattr(owner, fails, _full)
        wait_until(lambda: loop.status().recording_trouble, "the reason")
        assert "no space left on the disk" in loop.status().recording_trouble
        wait_until(lambda: not loop.status().recording, "the end of the recording")
        wait_until(lambda: events(loop, "recording")[-1].startswith("recording stopped"), "an event")
        monkeypatch.undo()
        lit_again(loop, display)
        # What was written until then can be read, and another recording be made.
        loop.start_recording()
        assert not loop.status().recording_trouble


def test_a_recording_ends_while_others_still_find_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording_loop(tmp_path) as (loop, display):
        monkeypatch.setattr(recording, "FREE_BYTES", 10**18)
        wait_until(lambda: loop.status().recording_trouble, "the reason")
        assert not loop.status().recording
        with pytest.raises(LinceiError, match="no space is left"):
            loop.start_recording()
        lit_again(loop, display)


def test_a_disk_that_is_too_slow_costs_recorded_frames_and_not_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = recording._ZarrPixels.append

    def slow(self: Any, frame: Frame, interval_s: float) -> dict[str, Any]:
        time.sleep(0.2)
        return append(self, frame, interval_s)

    monkeypatch.setattr(recording._ZarrPixels, "append", slow)
    with recording_loop(tmp_path) as (loop, _):
        wait_until(lambda: loop.status().recording_dropped >= 20, "frames left out")
        out = loop.status().frames_out
    (log,) = tmp_path.glob(f"*/{LOG_FILE}")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    frames = [line for line in lines if line["kind"] == "frame"]
    assert len(frames) < out / 2
    assert sum(line["dropped_before"] for line in frames) > 0
    assert lines[-1] == {
        "kind": "end",
        "frames": len(frames),
        "dropped_frames": lines[-1]["dropped_frames"],
        "trouble": "",
    }
    assert lines[-1]["dropped_frames"] >= 20


def test_a_snapshot_that_cannot_be_written_is_told_and_the_loop_goes_on(tmp_path: Path) -> None:
    in_the_way = tmp_path / "records"
    in_the_way.write_text("a file")
    records = Records(in_the_way, lambda frame: np.asarray(frame.pixels))
    with Loop(StandInCamera, StandInLive(), records=records) as loop:
        wait_until(lambda: loop.latest(), "a frame")
        with pytest.raises(LinceiError, match="in the way"):
            loop.snapshot().result(30)
        with pytest.raises(LinceiError, match="in the way"):
            loop.start_recording()
        wait_until(lambda: events(loop, "recording"), "an event")
        assert events(loop, "recording")[0].startswith("no snapshot: ")
        frames = loop.status().frames_out
        wait_until(lambda: loop.status().frames_out > frames, "more frames")
