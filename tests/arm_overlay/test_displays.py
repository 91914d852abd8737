"""Monitors, the choice of one, and the client of the microdisplay's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from virtual_screens import (
    EYEPIECE,
    EYEPIECE_SIZE,
    TwoMonitors,
    VirtualScreens,
    edid_of,
    one_monitor_server,
    until,
)

import arm_overlay.displays
from arm_overlay.displays import Microdisplay, Monitor, choose_monitor, list_monitors
from arm_overlay.overlay import Overlay, Region
from arm_overlay.rendering import fit
from lincei.errors import LinceiError, UsageError

FRAME_SIZE = (640, 360)
WARP = fit(FRAME_SIZE, EYEPIECE_SIZE)
INTERVAL_S = 1 / 30
# What is measured on a machine that does other things too.
BUSY_S = 0.3


def monitor(
    name: str, *, size: tuple[int, int] = (1920, 1080), x: int = 0, primary: bool = False, told: str = ""
) -> Monitor:
    maker, model, serial = [*told.split("/"), "", "", ""][:3]
    return Monitor(name, maker, model, serial, size, (x, 0), 60.0, primary)


OWN = monitor("DP-1", size=(2560, 1440), primary=True, told="Dell/U2720Q/A1")
SMALL = monitor("HDMI-1", x=2560, told="Kopin/VX-9/K7")
LARGE = monitor("HDMI-2", x=4480, size=(3840, 2160), told="Dell/U2720Q/B2")
DESK = (OWN, SMALL, LARGE)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("HDMI-1", SMALL),
        ("hdmi-1", SMALL),
        ("VX-9", SMALL),
        ("kopin vx-9", SMALL),
        ("K7", SMALL),
        ("1920x1080", SMALL),
        ("3840 x 2160", LARGE),
        ("second", SMALL),
        ("third", LARGE),
        ("none", None),
        ("DP-1!", OWN),
        ("first!", OWN),
        ("2560x1440!", OWN),
    ],
)
def test_a_monitor_is_chosen_by_name_model_serial_resolution_or_place(
    spec: str, expected: Monitor | None
) -> None:
    assert choose_monitor(spec, DESK) is expected


@pytest.mark.parametrize("spec", ["DP-1", "first", "2560x1440", "a1"])
def test_the_operators_own_screen_is_refused_unless_asked_for(spec: str) -> None:
    with pytest.raises(UsageError, match="operator's own screen") as raised:
        choose_monitor(spec, DESK)
    assert f"{spec}!" in str(raised.value)


def test_of_two_alike_the_one_that_is_not_the_operators_is_meant() -> None:
    assert choose_monitor("U2720Q", DESK) is LARGE


def test_two_that_could_be_meant_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"2 monitors are '1920x1080'.*HDMI-1, HDMI-3"):
        choose_monitor("1920x1080", (*DESK, monitor("HDMI-3", x=9000)))
    with pytest.raises(UsageError, match=r"2 monitors are 'U2720Q!'"):
        choose_monitor("U2720Q!", DESK)


@pytest.mark.parametrize("spec", ["HDMI-9", "640x480", "fourth", "", "!", "VX"])
def test_an_unknown_monitor_is_refused_with_those_there_are(spec: str) -> None:
    with pytest.raises(UsageError, match="there is no monitor") as raised:
        choose_monitor(spec, DESK)
    assert all(known.name in str(raised.value) for known in DESK)


def test_a_monitor_that_mirrors_the_operators_is_refused() -> None:
    mirror = Monitor("HDMI-1", "", "", "", (1920, 1080), (0, 0), 60.0, False, mirrors_primary=True)
    with pytest.raises(UsageError, match=r"shows the same as the operator's own screen.*Extend the desktop"):
        choose_monitor("second", (OWN, mirror))
    assert choose_monitor("second!", (OWN, mirror)) is mirror


def test_a_monitor_is_known_again_by_what_it_tells_else_by_its_connector() -> None:
    moved = monitor("DP-7", told="Kopin/VX-9/K7")
    assert SMALL.is_same(moved)
    assert not SMALL.is_same(monitor("HDMI-1", told="Dell/U2720Q/Z9"))
    silent = monitor("VGA-1")
    assert silent.is_same(monitor("VGA-1", size=(800, 600)))
    assert not silent.is_same(monitor("VGA-2"))
    # One has come that tells what it is: it is another.
    assert not silent.is_same(monitor("VGA-1", told="Dell/U2720Q/Z9"))
    # Many models share a name and tell no serial number: then the connector counts too.
    unnumbered = monitor("HDMI-1", told="Kopin/VX-9")
    assert unnumbered.is_same(monitor("HDMI-1", told="Kopin/VX-9"))
    assert not unnumbered.is_same(monitor("HDMI-2", told="Kopin/VX-9"))


def test_two_monitors_are_listed_with_what_they_tell(two_monitors: TwoMonitors) -> None:
    two_monitors.set_edid(EYEPIECE, edid_of("KPN", "VX-9", "K7"))
    own, eyepiece = list_monitors()
    assert (own.name, own.size_px, own.position_px, own.primary) == ("DUMMY0", (1600, 900), (0, 0), True)
    assert (eyepiece.name, eyepiece.size_px, eyepiece.position_px) == ("DUMMY1", (1280, 720), (1600, 0))
    assert (eyepiece.model, eyepiece.serial) == ("VX-9", "K7")
    assert eyepiece.refresh_hz > 50
    assert not eyepiece.own
    assert choose_monitor("vx-9", [own, eyepiece]) is eyepiece


def test_a_mirrored_desktop_is_seen(two_monitors: TwoMonitors) -> None:
    two_monitors.xrandr("--output", EYEPIECE, "--pos", "0x0")
    with pytest.raises(UsageError):
        choose_monitor("second", list_monitors())


def test_without_a_desktop_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    with pytest.raises(LinceiError, match=r"monitors cannot be listed.*set DISPLAY"):
        list_monitors()


def test_without_qt_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_overlay.displays.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[arm\]'"):
        list_monitors()


def test_listing_monitors_and_steering_the_display_import_no_qt() -> None:
    code = "import sys, arm_overlay.displays; assert not any(n.startswith('PySide6') for n in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def square(number: int, *, mode: str = "outline") -> Overlay:
    """Return an overlay with a square around the middle half of the view."""
    corners = np.array([(160, 90), (480, 90), (480, 270), (160, 270)], np.float32)
    return Overlay(number, time.monotonic(), FRAME_SIZE, mode=mode, regions=(Region(corners),))


class Feed:
    """Shows a new overlay thirty times a second, as the live loop does, until it is stopped."""

    def __init__(self, display: Microdisplay) -> None:
        self.display = display
        self.last_time_s = 0.0
        self.longest_call_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(INTERVAL_S):
            overlay = square(number)
            began_s = time.monotonic()
            self.display.show(overlay, WARP, frame_interval_s=INTERVAL_S)
            self.longest_call_s = max(self.longest_call_s, time.monotonic() - began_s)
            self.last_time_s = overlay.frame_time_s
            number += 1


@pytest.fixture
def display(two_monitors: TwoMonitors) -> Iterator[Microdisplay]:
    with Microdisplay("second", notice_s=0.0) as opened:
        until(lambda: not opened.trouble, "the display's start")
        yield opened


@pytest.fixture
def feed(display: Microdisplay) -> Iterator[Feed]:
    feeding = Feed(display)
    yield feeding
    feeding.stop()


def is_lit(screens: TwoMonitors) -> bool:
    """Tell whether the square is seen."""
    return bool((screens.eyepiece_pixels()[176:186, 640, 1] > 200).any())


def test_an_overlay_is_shown_where_the_warp_puts_it_and_reported(
    two_monitors: TwoMonitors, display: Microdisplay, feed: Feed
) -> None:
    until(lambda: is_lit(two_monitors), "the square")
    lit = two_monitors.eyepiece_pixels()[..., 1] > 100
    rows, columns = np.nonzero(lit)
    # Twice as large, since the display has twice the pixels of the frame.
    assert abs(rows.min() - 180) <= 3
    assert abs(rows.max() - 540) <= 3
    assert abs(columns.min() - 320) <= 3
    assert abs(columns.max() - 960) <= 3
    assert not lit[200:520, 340:940].any()
    until(lambda: display.last_shown and display.last_shown.frame_number >= 5, "reports")
    shown = display.reports()
    numbers = [report.frame_number for report in shown]
    assert numbers == sorted(set(numbers))
    assert all(report.frame_time_s < report.time_s < time.monotonic() for report in shown)
    assert all(report.draw_ms > 0 for report in shown)
    assert two_monitors.operator_is_untouched()


def test_nothing_is_shown_when_hidden_blank_unaligned_or_without_brightness(
    two_monitors: TwoMonitors, display: Microdisplay
) -> None:
    def shows(warp: np.ndarray | None = WARP, brightness: float = 1.0, reason: str = "") -> bool:
        """Tell whether it is lit while shown; lit beforehand, so that going dark is seen."""
        end_s = time.monotonic() + 30
        while not is_lit(two_monitors):
            assert time.monotonic() < end_s
            display.show(square(0), WARP, frame_interval_s=1.0)
            time.sleep(0.02)
        overlay = square(1)
        if reason:
            overlay = Overlay(1, time.monotonic(), FRAME_SIZE, blank_reason=reason)
        display.show(overlay, warp, frame_interval_s=1.0, brightness=brightness)
        until(lambda: two_monitors.eyepiece_is_black(), "black", 0.9)
        return False

    assert not shows(warp=None)
    assert not shows(brightness=0)
    assert not shows(reason="focus")
    until(lambda: display.show(square(2), WARP, frame_interval_s=1.0) or is_lit(two_monitors), "the square")
    display.blank("hidden")
    until(two_monitors.eyepiece_is_black, "black", 0.9)


def test_a_killed_process_is_replaced_within_two_seconds(
    two_monitors: TwoMonitors, display: Microdisplay, feed: Feed
) -> None:
    until(lambda: is_lit(two_monitors), "the square")
    killed = display.process_id
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    killed_s = time.monotonic()
    until(lambda: display.starts == 2, "a new process")
    until(lambda: is_lit(two_monitors), "the square again")
    assert time.monotonic() - killed_s < 2 + 10 * BUSY_S
    assert display.process_id != killed
    until(lambda: not display.trouble, "no trouble")


def test_a_stopped_display_process_goes_dark_in_time_is_replaced_and_never_blocks_the_loop(
    two_monitors: TwoMonitors, display: Microdisplay, feed: Feed
) -> None:
    until(lambda: is_lit(two_monitors), "the square")
    stopped = display.process_id
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    stopped_s = time.monotonic()
    until(lambda: not is_lit(two_monitors), "dark")
    # What it showed last was at most one frame older.
    assert time.monotonic() - stopped_s < INTERVAL_S + 0.2 + BUSY_S
    until(lambda: display.starts == 2 and is_lit(two_monitors), "the square again")
    assert feed.longest_call_s < BUSY_S


def test_a_process_that_is_stopped_while_dark_is_replaced_too(
    two_monitors: TwoMonitors, display: Microdisplay
) -> None:
    assert display.process_id is not None
    os.kill(display.process_id, signal.SIGSTOP)
    feeding = Feed(display)
    try:
        until(lambda: display.starts == 2 and is_lit(two_monitors), "the square")
    finally:
        feeding.stop()


def test_an_unplugged_monitor_is_told_and_comes_back(
    two_monitors: TwoMonitors, display: Microdisplay, feed: Feed
) -> None:
    until(lambda: is_lit(two_monitors), "the square")
    two_monitors.unplug()
    until(lambda: "DUMMY1 is not there" in display.trouble, "the trouble")
    two_monitors.refresh_desktop()
    assert two_monitors.operator_is_untouched()
    two_monitors.plug_in()
    until(lambda: is_lit(two_monitors), "the square again")
    until(lambda: not display.trouble, "no trouble")
    assert display.starts == 1
    assert two_monitors.operator_is_untouched()


def test_an_overlay_that_cannot_be_sent_is_an_error_and_the_next_is_shown(
    two_monitors: TwoMonitors, display: Microdisplay
) -> None:
    broken = Overlay(0, float("nan"), FRAME_SIZE)
    with pytest.raises(LinceiError, match="cannot be sent to the display"):
        display.show(broken, WARP, frame_interval_s=INTERVAL_S)
    until(lambda: display.show(square(1), WARP, frame_interval_s=1.0) or is_lit(two_monitors), "the square")


def test_a_damaged_overlay_is_told_and_the_next_is_shown(
    two_monitors: TwoMonitors, display: Microdisplay
) -> None:
    corners = np.full((4, 2), np.nan, np.float32)
    display.show(
        Overlay(0, time.monotonic(), FRAME_SIZE, regions=(Region(corners),)), WARP, frame_interval_s=1.0
    )
    until(lambda: "not finite" in display.trouble, "the trouble")
    until(lambda: display.show(square(1), WARP, frame_interval_s=1.0) or is_lit(two_monitors), "the square")
    until(lambda: not display.trouble, "no trouble")


def test_a_picture_is_shown_as_it_is_for_its_time(two_monitors: TwoMonitors, display: Microdisplay) -> None:
    picture = np.zeros((*EYEPIECE_SIZE[::-1], 3), np.uint8)
    picture[100:110, 200:230] = (255, 128, 7)
    until(
        lambda: (
            display.show_picture(picture, lasts_s=1.0)
            or np.array_equal(two_monitors.eyepiece_pixels(), picture)
        ),
        "the picture",
    )
    until(two_monitors.eyepiece_is_black, "black", 5.0)
    with pytest.raises(LinceiError, match="cannot be shown"):
        display.show_picture(picture.astype(np.float32), lasts_s=1.0)


def test_closing_takes_the_window_away_and_leaves_no_process(two_monitors: TwoMonitors) -> None:
    display = Microdisplay("1280x720", notice_s=0.0)
    until(lambda: not display.trouble, "the display's start")
    process = display.process_id
    assert process is not None
    display.close()
    display.close()
    until(two_monitors.eyepiece_is_uncovered, "no window")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_closing_a_display_that_hangs_ends_its_process(
    two_monitors: TwoMonitors, display: Microdisplay
) -> None:
    process = display.process_id
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    # More than the pipe takes.
    display.show_picture(np.zeros((*EYEPIECE_SIZE[::-1], 3), np.uint8), lasts_s=60.0)
    time.sleep(0.1)
    began_s = time.monotonic()
    display.close()
    assert time.monotonic() - began_s < 2 + BUSY_S
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_end_of_the_desktop_is_told_and_nothing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_monitor: VirtualScreens
) -> None:
    with one_monitor_server(tmp_path) as screens:
        monkeypatch.setenv("DISPLAY", screens.display)
        display = Microdisplay("first!", notice_s=0.0)
        until(lambda: not display.trouble, "the display's start")
    until(lambda: "ended" in display.trouble, "the trouble")
    until(lambda: display.starts > 1, "another try")
    display.show(square(0), WARP, frame_interval_s=INTERVAL_S)
    display.close()
    assert display.process_id is None


def test_the_display_never_opens_on_the_operators_screen_by_mistake(one_monitor: VirtualScreens) -> None:
    (only,) = list_monitors()
    with pytest.raises(UsageError, match="operator's own screen"):
        Microdisplay(only.name)
    with pytest.raises(UsageError, match="there is no monitor 'second'"):
        Microdisplay("second")
    with Microdisplay(f"{only.name}!", notice_s=0.0) as display:
        until(lambda: not one_monitor.pixels(0, 0, 1280, 720).any(), "the black window")
        assert not display.trouble
