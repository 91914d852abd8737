"""What all widgets share, in a real window."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
from qtpy.QtWidgets import QApplication

from lincei.errors import LinceiError, LinceiWarning
from lincei.progress import Progress, stop_if_cancelled
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition


class Counting(Panel):
    TITLE = "Counting"
    HELP = "Counts."
    RUN = "Count"
    RUN_TIP = "Count."

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self.job: Any = None
        self.result: Any = None

    def run(self) -> None:
        self.run_job(self.job, lambda result: setattr(self, "result", result))

    def repetition(self) -> Repetition | None:
        return Repetition("count()", "lincei count") if self.result else None


def docked(viewer: Any) -> Counting:
    panel = Counting(viewer)
    viewer.window.add_dock_widget(panel, name="Counting")
    return panel


def test_what_a_job_returns_comes_to_the_windows_thread(viewer, until):
    panel = docked(viewer)
    seen: list[Any] = []

    def job(progress: Any, cancelled: Any) -> int:
        for done in range(4):
            progress(Progress("counting", done, 4))
        return 7

    panel.job = job
    panel.run_button.click()
    assert panel.is_busy
    assert not panel.run_button.isEnabled()
    until(lambda: not panel.is_busy)
    assert panel.result == 7
    assert panel.run_button.isEnabled()
    assert not seen


def test_a_warning_and_an_error_are_sentences_in_the_widget(viewer, until):
    panel = docked(viewer)

    def job(progress: Any, cancelled: Any) -> None:
        warnings.warn("the pixel size is not known.", LinceiWarning, stacklevel=1)
        raise LinceiError("it is constant", "a.tif", "Check the lamp.")

    panel.job = job
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    assert panel.message.text() == "a.tif: it is constant. Check the lamp."
    panel.job = lambda progress, cancelled: warnings.warn("it is dark.", LinceiWarning, stacklevel=1)
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    assert panel.message.text() == "it is dark."


def test_cancel_stops_a_job_in_the_middle(viewer, until):
    panel = docked(viewer)
    began = threading.Event()

    def job(progress: Any, cancelled: Any) -> None:
        began.set()
        while True:
            stop_if_cancelled(cancelled)

    panel.job = job
    panel.run_button.click()
    until(began.is_set)
    panel.cancel_button.click()
    until(lambda: not panel.is_busy)
    assert panel.message.text().startswith("Stopped.")


def test_a_widget_that_is_closed_stops_its_job(viewer, until):
    panel = docked(viewer)
    ended = threading.Event()

    def job(progress: Any, cancelled: Any) -> None:
        try:
            while True:
                stop_if_cancelled(cancelled)
        finally:
            ended.set()

    panel.job = job
    panel.run_button.click()
    viewer.window.remove_dock_widget(panel)
    until(ended.is_set)


def test_what_was_run_is_copied(viewer, until):
    panel = docked(viewer)
    panel.copy_python.trigger()
    assert panel.message.text() == "Run something first, then copy it."
    panel.job = lambda progress, cancelled: 1
    panel.run_button.click()
    until(lambda: not panel.is_busy)
    panel.copy_command.trigger()
    assert QApplication.clipboard().text() == "lincei count"


def test_the_window_is_drawn(viewer, photograph):
    viewer.add_image(np.arange(64.0).reshape(8, 8))
    docked(viewer)
    picture = photograph(viewer, "panel")
    assert picture[..., :3].std() > 5
