"""What cameras with a library of their own share: waiting, the newest frame, a camera's clock, settings."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest

from arm_overlay.cameras import CameraError
from arm_overlay.cameras.polled import DeviceClock, NewestFrames, PolledCamera, split_settings
from arm_overlay.frames import Frame

LONG_S = 60.0


def _frame(number: int) -> Frame:
    return Frame(np.zeros((2, 2), np.uint8), time_s=float(number), number=number)


class _Device(PolledCamera):
    """A camera that fails where it is told to, and notes what becomes of it."""

    kind = "test"

    def __init__(self, fails: bool = False) -> None:
        super().__init__("")
        self.fails, self.events = fails, []

    @property
    def name(self) -> str:
        return "test device"

    def _connect(self) -> None:
        self.events.append("connect")
        if self.fails:
            raise CameraError("it is broken", self.name)

    def _newest(self, wait_s: float) -> Frame | None:
        return None

    def _disconnect(self) -> None:
        self.events.append("disconnect")


def test_what_a_failed_opening_took_is_let_go() -> None:
    device = _Device(fails=True)
    with pytest.raises(CameraError, match="it is broken"):
        device.open()
    assert device.events == ["connect", "disconnect"]
    device.close()
    assert device.events == ["connect", "disconnect"]
    device.fails = False
    device.open()
    device.close()
    assert device.events == ["connect", "disconnect"] * 2


def test_a_camera_that_sends_nothing_says_what_to_check() -> None:
    with (
        _Device() as device,
        pytest.raises(CameraError, match=r"no frame came within 0\.1 s.*Check its cable"),
    ):
        device.grab(0.1)


def test_of_frames_that_came_meanwhile_only_the_newest_is_taken() -> None:
    numbers = iter(range(5))
    all_read = threading.Event()

    def read() -> Frame | None:
        number = next(numbers, None)
        if number is None:
            all_read.set()
            frames.stopped.wait(LONG_S)
            return None
        return _frame(number)

    started = threading.Event()

    def read_when_started() -> Frame | None:
        started.wait(LONG_S)
        return read()

    frames = NewestFrames(read_when_started)
    try:
        started.set()
        assert all_read.wait(LONG_S)
        newest = frames.take(LONG_S)
        assert newest is not None
        assert newest.number == 4
        assert frames.take(0.01) is None
    finally:
        frames.stop()


@pytest.mark.parametrize("error", [CameraError("it ended", "here"), RuntimeError("code 17")])
def test_what_ends_the_reading_is_raised_after_the_last_frame(error: Exception) -> None:
    released = threading.Event()
    told: list[Callable[[], Frame]] = [lambda: _frame(0)]

    def read() -> Frame:
        if told:
            return told.pop()()
        raise error

    frames = NewestFrames(read, released.set)
    assert released.wait(LONG_S)
    newest = frames.take(LONG_S)
    assert newest is not None
    for _ in range(2):
        with pytest.raises(CameraError, match=r"it ended|code 17"):
            frames.take(LONG_S)
    frames.stop()


def test_stamps_without_a_clock_are_arrival_times() -> None:
    clock = DeviceClock()
    assert [clock.time_s(None, 10.0), clock.time_s(0, 10.1)] == [10.0, 10.1]


def test_jitter_of_the_arrival_drops_out_and_time_goes_on() -> None:
    rng = np.random.default_rng(3)
    clock, taken = DeviceClock(), []
    for number in range(400):
        stamp_s = number / 60
        delay_s = 0.004 + (rng.exponential(0.02) if number % 7 else 0)
        taken.append(clock.time_s(1000 + stamp_s, 50 + stamp_s + delay_s))
    expected = 50.004 + np.arange(400) / 60
    np.testing.assert_allclose(taken[10:], expected[10:], atol=1e-6)
    assert np.all(np.diff(taken) > 0)


def test_a_clock_that_drifts_is_followed() -> None:
    clock = DeviceClock(frames=100)
    # An hour at 30 frames a second, 50 millionths too slow: 0.18 s.
    for number in range(0, 108_000, 9):
        time_s = number / 30
        taken_s = clock.time_s(1 + time_s * (1 - 50e-6), time_s + 0.001)
        assert abs(taken_s - time_s) < 0.01
        assert taken_s <= time_s + 0.001


@pytest.mark.parametrize("stamps", [(5.0, 5.1, 0.1, 0.2), (5.0, 5.0, 5.0, 5.0), (5.0, 5e9, 5.1e9, 5.2e9)])
def test_a_clock_that_jumps_never_gives_a_time_after_the_arrival_or_before_the_last(
    stamps: tuple[float, ...],
) -> None:
    clock = DeviceClock()
    taken = [clock.time_s(stamp, 20.0 + 0.1 * number) for number, stamp in enumerate(stamps)]
    assert all(later > earlier for earlier, later in itertools.pairwise(taken))
    assert all(time_s <= 20.0 + 0.1 * number for number, time_s in enumerate(taken))
    assert taken[-1] > 20.2


@pytest.mark.parametrize(
    ("spec", "split"),
    [
        ("", ("", {})),
        ("0815-0000", ("0815-0000", {})),
        ("a.avi,loop,fps=2.5", ("a.avi", {"loop": "", "fps": "2.5"})),
        ("maker.cti#2,Width=64,Height=48", ("maker.cti#2", {"Width": "64", "Height": "48"})),
        ("PixelFormat=Mono8,Width=8", ("", {"PixelFormat": "Mono8", "Width": "8"})),
        ("run 1, day 2/a.avi", ("run 1, day 2/a.avi", {})),
    ],
)
def test_settings_stand_behind_the_camera(spec: str, split: tuple[str, dict[str, str]]) -> None:
    assert split_settings(spec) == split
