"""The operator's window, driven by keys in a process of its own: this one may have loaded TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from virtual_screens import TwoMonitors

SCRIPT = Path(__file__).with_name("drive_operator_window.py")


@pytest.fixture(scope="module")
def found(two_monitors_once: TwoMonitors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Drive the window once."""
    two_monitors_once.restore()
    folder = tmp_path_factory.mktemp("records")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env={**os.environ, "DISPLAY": two_monitors_once.display, "QT_QPA_PLATFORM": "xcb"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_it_says_what_is_in_use_and_that_it_is_for_research_only(found: dict[str, Any]) -> None:
    for part in (
        "Research use only. Not for diagnosis.",
        "Shown in the eyepiece: outline",
        "Camera: stand-in camera",
        "Display: stand-in display",
        "Alignment: aligned",
        "frames/s",
        "latency",
    ):
        assert part in found["says"]
    assert found["stages"]
    assert found["outline is drawn"]


def test_it_opens_on_the_main_screen(found: dict[str, Any]) -> None:
    assert found["on the main screen"]


def test_keys_choose_objective_mode_threshold_and_brightness(found: dict[str, Any]) -> None:
    # The script waits for each; what it found in between:
    assert found["one objective is down"] == ["10x"]


def test_the_keys_are_those_of_the_objectives_that_there_are(found: dict[str, Any]) -> None:
    assert "1 2\n" in found["keys of another turret"]
    assert "Objective 5x, 63x" in found["keys of another turret"]
    assert "20x" not in found["keys of another turret"]


def test_one_key_hides_everything_and_shows_it_again(found: dict[str, Any]) -> None:
    assert found["hidden stays dark"]
    assert found["hidden is said"]


def test_a_foot_switch_that_is_held_does_not_hide_and_show_in_turn(found: dict[str, Any]) -> None:
    assert found["held keys act again"] == ["+", "-", "=", "PgDown", "PgUp", "Shift++"]


def test_a_comment_is_typed_without_triggering_keys_and_goes_into_the_snapshot(found: dict[str, Any]) -> None:
    assert found["typed"] == "margin 1 S r"
    assert found["objective after typing 1"] == "10x"
    assert found["snapshots"] == ["margin 1 S r"]
    assert found["comment is emptied and left"]


def test_it_asks_for_the_objective_when_the_loop_does_and_a_key_answers(found: dict[str, Any]) -> None:
    assert "which objective is it?" in found["question"]
    assert found["eyepiece during the question"]


def test_it_warns_of_a_missing_alignment_and_tells_troubles(found: dict[str, Any]) -> None:
    assert "not aligned for 40x" in found["warning"]
    assert "unplugged" in found["trouble"]


def test_it_redraws_at_most_thirty_times_a_second(found: dict[str, Any]) -> None:
    assert 0 < found["redraws per second"] < 32


def test_a_window_that_cannot_keep_up_does_not_slow_the_loop(found: dict[str, Any]) -> None:
    slow = found["slow window"]
    # It draws for half of the time at most, and the loop goes on meanwhile.
    assert slow["redraws per second"] < 2.5
    assert slow["frames per second"] > 4 * slow["redraws per second"]


def test_everything_is_reached_with_the_keyboard(found: dict[str, Any]) -> None:
    reached = " | ".join(found["reached"])
    for name in (
        *("20x", "Model", "Outline", "Threshold", "Own  (0)", "Brightness", "Hide everything", "Comment"),
        *("Snapshot", "Record", "Keys"),
    ):
        assert name in reached, reached
    assert found["keys shown"]


def test_closing_it_stops_the_loop_and_the_end_of_the_loop_closes_it(found: dict[str, Any]) -> None:
    assert found["closing stops the loop"]
    assert found["closes at the end"]


def test_its_process_imports_no_training_library(found: dict[str, Any]) -> None:
    assert found["heavy"] == []
