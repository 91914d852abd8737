"""Operate the operator's window with a loop of stand-ins, in a process of its own; print what was found.

Run with the folder for records as the only argument, where a screen is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from loop_stand_ins import PATIENCE_S, Faults, StandInCamera, StandInDisplay, StandInLive, loop_threads
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication, QShortcut
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QPushButton, QWidget

from arm_overlay.cameras import CameraError
from arm_overlay.display_alignment import AlignmentError
from arm_overlay.live_view import application
from arm_overlay.loop import Loop
from arm_overlay.objectives import OBJECTIVES, WHICH_OBJECTIVE
from arm_overlay.operator_window import OperatorWindow, keys_of
from arm_overlay.recording import Records

FOUND: dict[str, Any] = {}


class Live(StandInLive):
    """Has two models."""

    def set_model(self, model: str) -> None:
        if model == "broken":
            raise AlignmentError("there is no model 'broken'", "", "Choose another.")
        super().set_model(model)


def wait(happened: Callable[[], object], what: str) -> None:
    """Let the window work until something has happened."""
    end_s = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > end_s:
            raise SystemExit(f"waited in vain: {what}")
        QTest.qWait(10)


def press(window: QWidget, key: Any, modifier: Any = Qt.KeyboardModifier.NoModifier) -> None:
    """Press a key where the focus is."""
    QTest.keyClick(QGuiApplication.focusWindow() or window.windowHandle(), key, modifier)


def texts(window: QWidget) -> str:
    """Return all that the window says."""
    labels = [label.text() for label in window.findChildren(QLabel) if label.isVisible()]
    return "\n".join(labels)


def drive(folder: Path) -> None:
    app = application()
    faults, live, display = Faults(), Live(), StandInDisplay()
    aligned = {"20x", "10x"}

    def alignment(objective: str, size_px: tuple[int, int]) -> Any:
        if objective not in aligned:
            raise AlignmentError(f"not aligned for {objective}", "DUMMY1", "Run `lincei arm align`.")
        return np.eye(3)

    loop = Loop(
        lambda: StandInCamera(faults, fps=100.0, size_px=(640, 400)),
        live,
        display,
        alignment=alignment,
        objective="20x",
        model="stand-in",
        records=Records(folder, lambda frame: frame.pixels),
    )
    loop.start()
    window = OperatorWindow(loop, models=["stand-in", "another", "broken"])
    window.show()
    wait(lambda: QTest.qWaitForWindowExposed(window, 100), "the window")
    window.activateWindow()
    wait(window.isActiveWindow, "the focus")
    wait(lambda: loop.status().frames_out > 20 and window.redraws > 5, "frames")
    buttons = {button.text(): button for button in window.findChildren(QPushButton)}

    place = window.frameGeometry()
    primary = QGuiApplication.primaryScreen().geometry()
    FOUND["on the main screen"] = primary.contains(place)
    wait(lambda: "Shown in the eyepiece: outline" in texts(window), "shown")
    FOUND["says"] = texts(window)
    image = window._view.grab().toImage()
    places = [(x, y) for x in range(image.width()) for y in range(0, image.height() // 3, 5)]
    FOUND["outline is drawn"] = any(image.pixelColor(*at).getRgb()[:3] == (0, 255, 0) for at in places)
    FOUND["stages"] = loop.status().stages_ms.keys() <= set(FOUND["says"].split("\n"))

    # Rates, at a hundred frames a second.
    redraws, began_s = window.redraws, time.monotonic()
    QTest.qWait(1500)
    FOUND["redraws per second"] = (window.redraws - redraws) / (time.monotonic() - began_s)

    # Keys.
    press(window, Qt.Key.Key_2)
    wait(lambda: live.objective == "10x" and buttons["10x"].isChecked(), "objective 10x")
    FOUND["one objective is down"] = [o for o in ("4x", "10x", "20x", "40x") if buttons[o].isChecked()]
    for key, mode in ((Qt.Key.Key_F2, "heatmap"), (Qt.Key.Key_F5, "animation"), (Qt.Key.Key_F1, "outline")):
        press(window, key)
        wait(lambda mode=mode: live.mode == mode, mode)  # type: ignore[misc]
    FOUND["held keys act again"] = sorted(
        shortcut.key().toString() for shortcut in window.findChildren(QShortcut) if shortcut.autoRepeat()
    )
    # From the model's own, 30 %, in steps of one.
    wait(lambda: "the model's own, 30 %" in texts(window), "the model's threshold told")
    press(window, Qt.Key.Key_Plus)
    wait(lambda: live.threshold == 0.31, "threshold up")
    wait(lambda: "THRESHOLD  31 %" in texts(window), "threshold told")
    press(window, Qt.Key.Key_0)
    wait(lambda: live.threshold is None, "own threshold")
    wait(lambda: "the model's own, 30 %" in texts(window), "the model's threshold again")
    press(window, Qt.Key.Key_Minus)
    wait(lambda: live.threshold == 0.29, "threshold down")
    press(window, Qt.Key.Key_0)
    wait(lambda: live.threshold is None, "own threshold")
    press(window, Qt.Key.Key_PageDown)
    wait(lambda: loop.status().brightness == 0.95, "darker")
    press(window, Qt.Key.Key_Space)
    wait(lambda: loop.status().hidden and display.dark, "hidden")
    QTest.qWait(300)
    FOUND["hidden stays dark"] = display.dark
    FOUND["hidden is said"] = "hidden" in texts(window)
    press(window, Qt.Key.Key_Space)
    wait(lambda: not display.dark, "shown again")

    # A comment is text, not keys; Enter takes the snapshot.
    press(window, Qt.Key.Key_C)
    wait(lambda: window._comment.hasFocus(), "comment")
    QTest.keyClicks(window._comment, "margin 1 S r")
    FOUND["typed"] = window._comment.text()
    press(window, Qt.Key.Key_Return)
    wait(lambda: "snapshot saved" in window._log.toPlainText(), "snapshot")
    FOUND["objective after typing 1"] = live.objective
    FOUND["comment is emptied and left"] = not window._comment.text() and not window._comment.hasFocus()
    FOUND["snapshots"] = [json.loads(p.read_text()).get("comment") for p in folder.glob("*/settings.json")]
    press(window, Qt.Key.Key_C)
    press(window, Qt.Key.Key_Escape)
    wait(lambda: not window._comment.hasFocus(), "left with Esc")

    press(window, Qt.Key.Key_R)
    wait(lambda: loop.status().recording and "Stop recording" in window._record.text(), "recording")
    press(window, Qt.Key.Key_R)
    wait(lambda: not loop.status().recording, "recording stopped")

    # Models.
    window._model.setCurrentText("another")
    window._model.activated.emit(1)
    wait(lambda: live.model == "another", "another model")
    window.choose_model("broken")
    wait(lambda: "there is no model 'broken'" in window._log.toPlainText(), "the model's error")

    # What the loop asks, and warns of.
    live.blank_reason = WHICH_OBJECTIVE
    wait(lambda: window._ask.isVisible(), "the question")
    FOUND["question"] = window._ask_text.text()
    FOUND["eyepiece during the question"] = display.dark
    live.blank_reason = ""
    press(window, Qt.Key.Key_3)
    wait(lambda: live.objective == "20x" and not window._ask.isVisible(), "the answer")
    press(window, Qt.Key.Key_4)
    wait(lambda: window._warning.isVisible(), "the warning")
    FOUND["warning"] = window._warning.text()
    press(window, Qt.Key.Key_3)
    wait(lambda: not window._warning.isVisible(), "no warning")
    faults.grab_error = CameraError("unplugged", "stand-in camera")
    wait(lambda: window._state.property("kind") == "trouble", "the camera's trouble")
    FOUND["trouble"] = window._state.text()
    faults.grab_error = None
    wait(lambda: window._state.property("kind") == "shown", "reconnected")

    # A window that cannot keep up does not slow the loop.
    from arm_overlay import operator_window

    quick = operator_window.shrunken

    def slow(*values: Any) -> Any:
        time.sleep(0.3)
        return quick(*values)

    operator_window.shrunken = slow
    redraws, frames, began_s = window.redraws, loop.status().frames_out, time.monotonic()
    QTest.qWait(2500)
    seconds = time.monotonic() - began_s
    FOUND["slow window"] = {
        "redraws per second": (window.redraws - redraws) / seconds,
        "frames per second": (loop.status().frames_out - frames) / seconds,
    }
    operator_window.shrunken = quick

    # Everything is reached with the Tab key.
    reached, ends = [], time.monotonic() + PATIENCE_S
    window._view.setFocus()
    while time.monotonic() < ends:
        press(window, Qt.Key.Key_Tab)
        focus = app.focusWidget()
        name = "" if focus is None else focus.property("text") or focus.accessibleName()
        if name in reached:
            break
        reached.append(name)
    FOUND["reached"] = reached
    press(window, Qt.Key.Key_Question, Qt.KeyboardModifier.ShiftModifier)
    wait(lambda: hasattr(window, "_keys_dialog") and window._keys_dialog.isVisible(), "the keys")
    QTest.qWait(100)
    shown = texts(window._keys_dialog)
    FOUND["keys shown"] = all(key in shown and what in shown for key, what in keys_of(OBJECTIVES).items())
    window._keys_dialog.close()

    # Another turret.
    turret = OperatorWindow(loop, models=[], objectives=("5x", "63x"))
    turret.show()
    turret.activateWindow()
    wait(turret.isActiveWindow, "the other window's focus")
    press(turret, Qt.Key.Key_2)
    wait(lambda: live.objective == "63x", "objective 63x")
    turret.show_keys()
    FOUND["keys of another turret"] = texts(turret._keys_dialog)
    turret._keys_dialog.close()
    turret.hide()

    loop_before = loop.finished
    window.close()
    wait(lambda: loop.finished, "the loop's end")
    FOUND["closing stops the loop"] = not loop_before and not loop_threads() and display.closed
    FOUND["heavy"] = sorted({"tensorflow", "keras", "torch", "jax"} & set(sys.modules))

    # When the film is over, the window closes by itself.
    short = Loop(lambda: StandInCamera(frames=30, size_px=(64, 40)), Live())
    short.start()
    second = OperatorWindow(short, models=[])
    second.show()
    wait(lambda: not second.isVisible(), "the end of the film")
    FOUND["closes at the end"] = short.finished


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
    print(json.dumps(FOUND))
