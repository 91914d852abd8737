"""Align with the window, as an operator and an observer do, in a process of its own; print what came of it.

Run where a screen is, with the environment variable LINCEI_ARM naming the folder for alignments.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from optical_path import (
    CAMERA_PX,
    DISPLAY_PX,
    MONITOR,
    OpticalPath,
    PathCamera,
    PathDisplay,
    largest_error_px,
)
from optical_path import some_map as a_map
from PySide6.QtCore import Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel

from arm_overlay.align_window import AlignWindow, show_align_window
from arm_overlay.cameras import CameraError
from arm_overlay.display_alignment import AlignmentError, display_key, load_alignment, mapped
from arm_overlay.frames import Frame
from arm_overlay.live_view import LiveView, application

FOUND: dict[str, Any] = {}
PATIENCE_S = 30.0
TRUE = a_map(rotation_deg=6, mirrored=True, shift_px=(25, -12))


class Camera(PathCamera):
    """Fails when it is told to."""

    error: CameraError | None = None

    def grab(self, timeout_s: float = 1.0) -> Frame:
        if self.error is not None:
            raise self.error
        return super().grab(timeout_s)


def wait(happened: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > end_s:
            raise SystemExit(f"waited in vain: {what}")
        QTest.qWait(10)


def keys(window: AlignWindow, key: Any, times: int = 1, *, far: bool = False) -> None:
    modifier = Qt.KeyboardModifier.ShiftModifier if far else Qt.KeyboardModifier.NoModifier
    for _ in range(times):
        QTest.keyClick(window.windowHandle(), key, modifier)


def move_by_keys(window: AlignWindow, dx: float, dy: float) -> None:
    """Press arrow keys, with Shift for tens, as often as it takes."""
    for distance, forth, back in (
        (dx, Qt.Key.Key_Right, Qt.Key.Key_Left),
        (dy, Qt.Key.Key_Down, Qt.Key.Key_Up),
    ):
        steps = round(abs(distance))
        key = forth if distance > 0 else back
        keys(window, key, steps // 10, far=True)
        keys(window, key, steps % 10)


def opened(window: AlignWindow) -> None:
    window.resize(1000, 640)
    window.show()
    wait(lambda: QTest.qWaitForWindowExposed(window, 100), "the window")
    window.activateWindow()
    wait(window.isActiveWindow, "the focus")


def says(window: AlignWindow) -> str:
    return "\n".join(label.text() for label in window.findChildren(QLabel) if label.isVisible())


def with_landmarks() -> None:
    path = OpticalPath(TRUE)
    camera, display = Camera(path), PathDisplay(path)
    window = AlignWindow(camera, display, "20x", "landmarks")
    opened(window)
    landmarks = window.landmarks
    assert landmarks is not None
    for number in range(len(landmarks)):
        if number == 3:
            FOUND["three are not enough"] = not window._save.isEnabled()
        target = mapped(TRUE, landmarks.landmarks_px[landmarks.index])[0]
        move_by_keys(window, *(target - np.array(landmarks.cross_px)))
        FOUND[f"cross {number}"] = float(np.linalg.norm(target - landmarks.cross_px))
        keys(window, Qt.Key.Key_Return)
    wait(lambda: "residual" in says(window), "the residual")
    camera.error = CameraError("unplugged", "a camera")
    wait(lambda: "unplugged" in says(window), "the camera's trouble")
    camera.error = None
    wait(lambda: "unplugged" not in says(window), "the camera again")
    FOUND["says"] = says(window)
    keys(window, Qt.Key.Key_S)
    wait(lambda: not window.isVisible(), "saved")
    assert window.aligned is not None
    stored = load_alignment("20x", CAMERA_PX, display_key(MONITOR), DISPLAY_PX)
    FOUND["landmarks"] = {
        "error": largest_error_px(stored.matrix, TRUE),
        "method": stored.method,
        "sentence": window.aligned.sentence,
        "display is dark": path.picture is None,
    }


def checked() -> None:
    bumped = np.eye(3)
    bumped[:2, 2] = (18, 24)
    path = OpticalPath(bumped @ TRUE)
    stored = load_alignment("20x", CAMERA_PX, display_key(MONITOR), DISPLAY_PX)
    window = AlignWindow(Camera(path), PathDisplay(path), "20x", "landmarks", start=stored, checking=True)
    opened(window)
    landmarks = window.landmarks
    assert landmarks is not None
    for _ in range(2):
        target = mapped(path.matrix, landmarks.landmarks_px[landmarks.index])[0]
        move_by_keys(window, *(target - np.array(landmarks.cross_px)))
        keys(window, Qt.Key.Key_Return)
    keys(window, Qt.Key.Key_S)
    wait(lambda: not window.isVisible(), "checked")
    assert window.aligned is not None
    assert window.aligned.residual is not None
    FOUND["checked"] = {"rms_px": window.aligned.residual.rms_px, "good": window.aligned.good}


def by_hand() -> None:
    true = a_map(rotation_deg=-8, scale=1.1, mirrored=True, shift_px=(31, 17))
    path = OpticalPath(true)
    window = AlignWindow(Camera(path), PathDisplay(path), "10x", "manual")
    opened(window)
    keys(window, Qt.Key.Key_M)
    keys(window, Qt.Key.Key_BracketLeft, 80)
    keys(window, Qt.Key.Key_Plus, 48)
    move_by_keys(window, 31, 17)
    wait(lambda: path.picture is not None, "the target")
    FOUND["by hand says"] = says(window)
    keys(window, Qt.Key.Key_S)
    wait(lambda: not window.isVisible(), "saved")
    stored = load_alignment("10x", CAMERA_PX, display_key(MONITOR), DISPLAY_PX)
    FOUND["by hand"] = {"error": largest_error_px(stored.matrix, true), "kind": stored.kind}


def left() -> None:
    """Leave without saving, through what the command calls."""
    path = OpticalPath(TRUE)

    def leave() -> None:
        for window in application().topLevelWidgets():
            if isinstance(window, AlignWindow) and window.isActiveWindow():
                keys(window, Qt.Key.Key_Escape)

    timer = QTimer()
    QTimer.singleShot(round(1000 * PATIENCE_S), application().quit)
    timer.timeout.connect(leave)
    timer.start(200)
    try:
        show_align_window(Camera(path), PathDisplay(path), "40x", "landmarks")
    except AlignmentError as error:
        FOUND["left"] = str(error)
    timer.stop()
    empty = OpticalPath(TRUE)
    empty.tissue[:] = 0.8
    try:
        show_align_window(Camera(empty), PathDisplay(empty), "40x", "landmarks")
    except AlignmentError as error:
        FOUND["empty"] = str(error)


if __name__ == "__main__":
    application()
    with_landmarks()
    checked()
    by_hand()
    left()
    view = LiveView()
    for _ in range(30_000):
        view.update()
        view.windowTitleChanged.emit("")
    FOUND["survives"] = True
    FOUND["heavy"] = sorted({"tensorflow", "keras", "torch", "jax"} & set(sys.modules))
    print(json.dumps(FOUND))
