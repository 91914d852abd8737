"""The running loop with stand-ins: overlap, newest wins, timings, steering, statistics."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError
from arm_overlay.frames import Frame
from arm_overlay.loop import Loop, NewestSlot
from arm_overlay.loop_status import AVERAGED_FRAMES, STAGES, Latencies, Rate
from arm_overlay.overlay import Overlay
from lincei.errors import LinceiError

Started = Callable[..., Loop]


@pytest.fixture
def started() -> Iterator[Started]:
    """Start loops that are stopped at the end of the test."""
    loops: list[Loop] = []

    def start(camera: Callable[[], StandInCamera], live: StandInLive, *args: Any, **options: Any) -> Loop:
        loop = Loop(camera, live, *args, **options)
        loops.append(loop)
        loop.start()
        return loop

    yield start
    for loop in loops:
        loop.stop()


def test_frames_go_from_the_camera_through_the_model_onto_the_display(started: Started) -> None:
    display = StandInDisplay()
    loop = started(StandInCamera, StandInLive(), display)
    wait_until(lambda: len(display.shown) >= 20, "20 overlays")
    numbers = [overlay.frame_number for overlay in display.shown]
    assert numbers == sorted(set(numbers))
    status = loop.status()
    assert status.camera == "stand-in camera"
    assert status.display == "stand-in display"
    assert status.objective == "20x"
    assert not status.blank_reason
    latest = loop.latest()
    assert latest is not None
    assert latest[0].number == latest[1].frame_number


def test_a_slow_model_gets_the_newest_frame_and_the_others_are_dropped_and_counted(started: Started) -> None:
    live = StandInLive(takes_s=0.1)
    loop = started(lambda: StandInCamera(fps=200), live)
    wait_until(lambda: len(live.seen) >= 6, "6 answers")
    # A queue would hand over every frame in turn; a slot of one passes over those that came meanwhile.
    assert min(np.diff(live.seen)) > 5
    status = loop.status()
    assert status.dropped >= 5 * 5
    assert status.frames_in > status.frames_out


def test_capture_goes_on_while_the_model_works(started: Started) -> None:
    live = StandInLive()
    live.answers.clear()
    loop = started(StandInCamera, live)
    wait_until(lambda: loop.status().frames_in >= 20, "20 frames during one step")
    assert loop.status().frames_out == 0
    live.answers.set()


def test_every_stage_is_timed_and_averaged_over_the_last_50_frames(started: Started) -> None:
    live = StandInLive()
    loop = started(StandInCamera, live, StandInDisplay())
    wait_until(lambda: loop.status().frames_out >= 10, "10 answers")
    stages = loop.status().stages_ms
    assert set(stages) <= set(STAGES)
    assert {"grab", "wait", "debayer", "gate", "inference", "outline", "warp", "display"} <= set(stages)
    assert stages["debayer"] == pytest.approx(1.0)
    assert stages["display"] == pytest.approx(2.0)
    # What was slow more than 50 frames ago does not count any more.
    live.takes_s = 0.02
    wait_until(lambda: loop.status().stages_ms["inference"] > 1, "slow steps")
    live.takes_s = 0.0
    before = loop.status().frames_out
    wait_until(lambda: loop.status().frames_out > before + AVERAGED_FRAMES + 1, "51 quick steps")
    assert loop.status().stages_ms["inference"] == 0


def test_a_change_of_objective_darkens_the_eyepiece_until_frames_of_it_are_answered(started: Started) -> None:
    display, live = StandInDisplay(), StandInLive(takes_s=0.05)
    loop = started(StandInCamera, live, display)
    wait_until(lambda: len(display.shown) >= 2, "overlays")
    loop.set_objective("40x")
    changed_s = time.monotonic()
    assert live.objective == "40x"
    wait_until(lambda: any(o.objective == "40x" for o in display.shown), "an overlay of 40x")
    with display._lock:
        calls = list(display.calls)
    (at,) = [place for place, call in enumerate(calls) if call[:2] == ("blank", "objective 40x")]
    lit = [overlay for kind, overlay, _ in calls[at:] if kind == "show"]
    assert lit[0].objective == "40x"
    assert lit[0].frame_time_s > changed_s - 0.05
    assert not any(o.objective == "20x" for o in lit)


def test_hiding_everything_darkens_the_eyepiece_at_once_until_it_is_shown_again(started: Started) -> None:
    display = StandInDisplay()
    loop = started(StandInCamera, StandInLive(), display)
    wait_until(lambda: display.shown, "an overlay")
    loop.toggle_hidden()
    assert display.dark
    lit, frames = len(display.shown), loop.status().frames_out
    wait_until(lambda: loop.status().frames_out > frames + 5, "more frames")
    assert len(display.shown) == lit
    assert loop.status().blank_reason == "hidden"
    latest = loop.latest()
    assert latest is not None
    assert latest[1].regions  # the operator still sees it
    loop.toggle_hidden()
    wait_until(lambda: len(display.shown) > lit, "an overlay again")


def test_without_an_alignment_the_eyepiece_stays_dark_and_the_operator_is_told(started: Started) -> None:
    def missing(objective: str, size_px: tuple[int, int]) -> NDArray[Any]:
        raise LinceiError(
            f"camera and display are not aligned for {objective}", "HDMI-2", "Run the alignment."
        )

    display = StandInDisplay()
    loop = started(StandInCamera, StandInLive(), display, alignment=missing)
    wait_until(lambda: loop.status().frames_out >= 5, "answers")
    wait_until(lambda: loop.status().warnings, "a warning")
    assert not display.shown
    status = loop.status()
    assert status.blank_reason == "not aligned"
    assert "not aligned for 20x" in status.warnings[0]
    assert sum(event.source == "alignment" for event in status.events) == 1
    latest = loop.latest()
    assert latest is not None
    assert latest[1].regions


def test_each_objective_has_its_own_warp_and_alignments_are_read_anew_when_asked(started: Started) -> None:
    scale = {"20x": 2.0, "40x": 4.0}
    asked: list[tuple[str, tuple[int, int]]] = []

    def alignment(objective: str, size_px: tuple[int, int]) -> NDArray[Any]:
        asked.append((objective, size_px))
        return np.diag([scale[objective], scale[objective], 1.0])

    display = StandInDisplay()
    loop = started(StandInCamera, StandInLive(), display, alignment=alignment)
    wait_until(lambda: len(display.shown) > 5, "overlays")
    loop.set_objective("40x")
    wait_until(lambda: display.shown[-1].objective == "40x", "an overlay of 40x")
    for kind, overlay, warp in display.calls:
        if kind == "show":
            assert warp[0, 0] == scale[overlay.objective]
    assert asked == [("20x", (96, 64)), ("40x", (96, 64))]
    scale["40x"] = 5.0
    loop.forget_alignments()
    wait_until(lambda: any(call[2] is not None and call[2][0, 0] == 5 for call in display.calls), "new warp")


def test_a_blank_overlay_says_why_and_lights_nothing(started: Started) -> None:
    display, live = StandInDisplay(), StandInLive()
    live.blank_reason = "focus"
    loop = started(StandInCamera, live, display)
    wait_until(lambda: loop.status().frames_out >= 5, "answers")
    wait_until(lambda: loop.status().blank_reason == "focus", "the reason")
    assert not display.shown
    assert loop.statistics()["latency_frames"] == 0
    assert loop.statistics()["blank_frames"]["focus"] >= 1


def test_listeners_hear_each_overlay_and_one_that_fails_is_left_out(started: Started) -> None:
    heard: list[int] = []

    def listen(frame: Frame, overlay: Overlay) -> None:
        heard.append(overlay.frame_number)

    def fail(frame: Frame, overlay: Overlay) -> None:
        raise RuntimeError("the window is gone")

    loop = started(StandInCamera, StandInLive())
    loop.add_listener(fail)
    loop.add_listener(listen)
    wait_until(lambda: len(heard) >= 5, "overlays")
    failures = [event.text for event in loop.status().events if event.source == "listener"]
    assert failures == ["what listened has failed: RuntimeError: the window is gone"]


def test_frames_that_the_camera_passed_over_count_as_dropped(started: Started) -> None:
    class Gaps(StandInCamera):
        def grab(self, timeout_s: float = 1.0) -> Frame:
            frame = super().grab(timeout_s)
            self._number += 2
            return frame

    loop = started(lambda: Gaps(fps=20), StandInLive())
    wait_until(lambda: loop.status().frames_out >= 5, "answers")
    loop.stop()
    statistics = loop.statistics()
    assert statistics["dropped_frames"] >= 2 * (statistics["frames_out"] - 1)
    assert statistics["frames_taken"] == statistics["dropped_frames"] + statistics["frames_out"]


def test_statistics_hold_rates_stages_latencies_and_events_and_are_json(started: Started) -> None:
    loop = started(StandInCamera, StandInLive(), StandInDisplay(), model="stand-in")
    wait_until(lambda: loop.statistics()["latency_frames"] >= 20, "20 latencies")
    loop.stop()
    statistics = json.loads(json.dumps(loop.statistics()))
    assert statistics["research_use_only"] is True
    assert 0 < statistics["fps_out"] <= statistics["fps_in"] * 1.05
    assert set(statistics["latency_ms"]) == {"p50", "p95", "p99"}
    assert 0 < statistics["latency_ms"]["p50"] <= statistics["latency_ms"]["p95"]
    assert statistics["stages_averaged_over_frames"] == 50
    assert statistics["model"] == "stand-in"
    assert statistics["events"][0]["text"] == "connected to stand-in camera"


def test_the_end_of_a_film_ends_the_loop_after_its_last_frame(started: Started) -> None:
    live, display = StandInLive(takes_s=0.02), StandInDisplay()
    loop = started(lambda: StandInCamera(frames=20), live, display)
    assert loop.wait(30)
    assert live.seen[-1] == 19
    assert display.dark


def test_a_camera_that_cannot_be_opened_at_the_start_is_an_error_and_leaves_nothing_running() -> None:
    faults = Faults()
    faults.open_error = CameraError("there is no camera 7", "usb:7", "There are: usb:0.")
    display = StandInDisplay()
    loop = Loop(lambda: StandInCamera(faults), StandInLive(), display)
    with pytest.raises(CameraError, match=r"there is no camera 7.*usb:0"):
        loop.start()
    assert display.closed
    wait_until(lambda: not loop_threads(), "the end of all threads")


def test_stopping_ends_all_threads_and_closes_the_display() -> None:
    display = StandInDisplay()
    with Loop(StandInCamera, StandInLive(), display) as loop:
        wait_until(lambda: display.shown, "an overlay")
    assert display.closed
    assert display.dark
    assert loop.finished
    wait_until(lambda: not loop_threads(), "the end of all threads")
    loop.stop()  # twice does nothing


def test_a_snapshot_without_a_folder_for_records_is_refused_in_words(started: Started) -> None:
    loop = started(StandInCamera, StandInLive())
    wait_until(lambda: loop.latest(), "a frame")
    with pytest.raises(LinceiError, match="no folder for records"):
        loop.snapshot().result(10)
    with pytest.raises(LinceiError, match="no folder for records"):
        loop.start_recording()


def test_a_slot_of_one_keeps_the_newest() -> None:
    slot: NewestSlot[int] = NewestSlot()
    assert slot.take(0) is None
    assert [slot.put(number) for number in (1, 2, 3)] == [False, True, True]
    assert slot.take(0) == 3
    assert slot.empty


def test_percentiles_of_latencies_agree_with_numpy_in_memory_that_does_not_grow() -> None:
    durations = np.random.default_rng(0).gamma(4, 10, 20_000)
    latencies = Latencies()
    size = latencies._counts.nbytes
    for duration in durations:
        latencies.add(float(duration))
    latencies.add(1e9)
    expected = np.percentile(durations, [50, 95, 99])
    found = latencies.percentiles(50, 95, 99)
    assert list(found) == ["p50", "p95", "p99"]
    np.testing.assert_allclose(list(found.values()), expected, atol=0.5)
    assert latencies._counts.nbytes == size
    assert latencies.count == 20_001
    assert Latencies().percentiles(50) == {}


def test_a_rate_is_that_of_the_last_frames_and_0_when_none_come() -> None:
    rate = Rate()
    assert rate.per_second(0.0) == 0
    for number in range(200):
        rate.count(number / 25)
    assert rate.per_second(199 / 25) == pytest.approx(25)
    assert rate.per_second(199 / 25 + 3) == 0


def test_memory_does_not_grow_with_the_frames(started: Started) -> None:
    live = StandInLive()
    live.seen = deque(maxlen=10)  # type: ignore[assignment]

    def complain(frame: Frame) -> Overlay:
        # A reason that is another one for each frame must not be kept for each.
        overlay = step(frame)
        return replace(overlay, blank_reason=f"reason {frame.number}", regions=())

    step, live.step = live.step, complain  # type: ignore[method-assign]
    loop = started(lambda: StandInCamera(fps=2000), live)
    wait_until(lambda: loop.status().frames_out > 300, "a start")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        frames = loop.status().frames_out
        wait_until(lambda: loop.status().frames_out > frames + 1500, "1500 frames")
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # 1500 frames of this size are 27 MB; what is counted for each frame would be far above this, too.
    assert grown < 300_000
    assert len(loop.statistics()["blank_frames"]) <= 51
