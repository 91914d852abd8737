"""Take pictures of the operator's windows; ``make.py`` runs it, as a process of its own.

``python docs/pictures/arm_windows.py FRAMES PIXEL_SIZE_UM OUT``: frames to be played, the size of their
pixels, and the folder for the pictures.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtWidgets import QWidget

from arm_overlay.align_window import AlignWindow
from arm_overlay.cameras import new_camera
from arm_overlay.display_alignment import manual_matrix, mapped
from arm_overlay.displays import Monitor
from arm_overlay.live import LiveOutline
from arm_overlay.live_view import application
from arm_overlay.loop import Loop, NoDisplay
from arm_overlay.operator_window import OperatorWindow

MODEL, OBJECTIVE = "tumor-breast", "20x"
SIZE_PX, ALIGN_SIZE_PX = (1240, 860), (1240, 680)
LIMIT_S = 300.0


class Eyepiece(NoDisplay):
    """Stands for the microdisplay, which is not in the picture."""

    name = "HDMI-2"
    monitor = Monitor("HDMI-2", "", "", "", (1280, 720), (1920, 0), 60.0, False)
    last_picture_s: float | None = None

    def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
        """Show nothing."""


def wait(happened: Callable[[], object], least_s: float = 0.0) -> None:
    """Let the windows work until something has happened."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + least_s or not happened():
        if time.monotonic() > began_s + LIMIT_S:
            raise SystemExit("The window did not show what it was to show.")
        application().processEvents()
        time.sleep(0.01)


def photograph(window: QWidget, path: Path) -> None:
    """Save what a window shows, and close it."""
    window.grab().save(str(path))
    window.close()


def operator(camera: str, pixel_size_um: float, path: Path) -> None:
    """Take a picture of the operator's window while the loop runs."""
    with LiveOutline(model=MODEL, objective=OBJECTIVE, pixel_size_um=pixel_size_um) as live:
        loop = Loop(lambda: new_camera(camera), live, Eyepiece(), model=MODEL, objective=OBJECTIVE)
        with loop:
            window = OperatorWindow(loop)
            window.resize(*SIZE_PX)
            window.show()
            wait(lambda: loop.status().frames_out > 60)
            wait(lambda: shows_regions(window), least_s=2.0)
            photograph(window, path)


def shows_regions(window: OperatorWindow) -> bool:
    """Tell whether a picture of the window would show outlines; on a busy computer not every one does."""
    drawn: Any = window._drawn
    return window._state.property("kind") == "shown" and drawn is not None and bool(drawn[1].regions)


def landmarks(camera: str, path: Path) -> None:
    """Take a picture of the window while landmarks are set."""
    with new_camera(camera) as device:
        window = AlignWindow(device, Eyepiece(), OBJECTIVE, "landmarks")
        window.resize(*ALIGN_SIZE_PX)
        window.show()
        there = window.landmarks
        assert there is not None
        true = manual_matrix(there.camera_size_px, there.display_size_px, scale=0.9, rotation_deg=4)
        for _ in range(4):
            target = mapped(true, there.landmarks_px[there.index])[0]
            window.move_by(*np.round(target - there.cross_px))
            there.set()
        wait(lambda: True, least_s=2.0)
        photograph(window, path)


def by_hand(camera: str, path: Path) -> None:
    """Take a picture of the window with the target of circles."""
    with new_camera(camera) as device:
        window = AlignWindow(device, Eyepiece(), OBJECTIVE, "manual")
        window.resize(*ALIGN_SIZE_PX)
        window.show()
        window.turn(4.0)
        window.move_by(12.0, -7.0)
        wait(lambda: True, least_s=2.0)
        photograph(window, path)


if __name__ == "__main__":
    frames, pixel_size_um, out = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]).absolute()
    application()
    # Where frames lie is nobody's business: the window shows the camera's name.
    os.chdir(frames.parent)
    still = f"file:{frames.name}/frame_00.png,loop"
    landmarks(still, out / "landmarks.png")
    by_hand(still, out / "by_hand.png")
    operator(f"file:{frames.name},fps=30,loop", pixel_size_um, out / "operator.png")
