"""The window for aligning, driven by keys in a process of its own: this one may have loaded TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from virtual_screens import TwoMonitors

SCRIPT = Path(__file__).with_name("drive_align_window.py")


@pytest.fixture(scope="module")
def found(two_monitors_once: TwoMonitors, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Drive the window once."""
    two_monitors_once.restore()
    environment = {
        **os.environ,
        "DISPLAY": two_monitors_once.display,
        "QT_QPA_PLATFORM": "xcb",
        "LINCEI_ARM": str(tmp_path_factory.mktemp("arm")),
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_arrow_keys_bring_the_cross_to_within_a_pixel_of_a_landmark(found: dict[str, Any]) -> None:
    assert all(found[f"cross {number}"] < 1 for number in range(4))


def test_landmarks_set_with_the_keys_give_an_alignment_that_is_stored(found: dict[str, Any]) -> None:
    stored = found["landmarks"]
    assert stored["error"] < 2.5
    assert stored["method"] == "landmarks"
    assert stored["display is dark"]
    assert "residual 0." in stored["sentence"]


def test_fewer_than_four_landmarks_cannot_be_saved(found: dict[str, Any]) -> None:
    assert found["three are not enough"]


def test_the_window_tells_what_to_do_the_residual_and_the_keys(found: dict[str, Any]) -> None:
    for part in ("Research use only", "Align 20x with landmarks", "6 of 6 set", "residual", "Arrows", "Esc"):
        assert part in found["says"]


def test_a_check_with_landmarks_says_how_far_off_it_is(found: dict[str, Any]) -> None:
    assert found["checked"]["rms_px"] == pytest.approx(30, abs=1.5)
    assert not found["checked"]["good"]


def test_keys_shift_scale_turn_and_mirror_the_target_by_hand(found: dict[str, Any]) -> None:
    assert found["by hand"]["error"] < 2
    assert found["by hand"]["kind"] == "similarity"
    assert "turned -8.0 degrees, mirrored" in found["by hand says"]


def test_leaving_stores_nothing_and_says_so(found: dict[str, Any]) -> None:
    assert "nothing was stored" in found["left"]


def test_empty_glass_is_told_before_the_window_opens(found: dict[str, Any]) -> None:
    assert "landmarks, and four are needed" in found["empty"]


def test_a_long_session_does_not_use_up_the_references_to_none_and_true(found: dict[str, Any]) -> None:
    # PySide6 6.12.0 on Python 3.11 takes one with each call, see `arm_overlay.displays.protect_constants`.
    assert found["survives"]


def test_its_process_imports_no_training_library(found: dict[str, Any]) -> None:
    assert found["heavy"] == []
