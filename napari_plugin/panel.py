"""What all widgets share: a heading, a form, run and cancel, progress with the time left, what went wrong.

A widget is a `Panel`: it puts its controls into ``self.form``, gives its work to `Panel.run_job`, and says in
`Panel.repetition` how the same is done in a script.
"""

from __future__ import annotations

import contextlib
import functools
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from arm_overlay.displays import protect_constants
from lincei.errors import LinceiError
from lincei.progress import Progress
from napari_plugin.background import BackgroundJob, Job
from napari_plugin.repetition import Repetition

if TYPE_CHECKING:
    from napari.components import ViewerModel

RESEARCH_USE = "Research use only."
_ERROR, _WARNING = "#d9534f", "#d08700"


class Resources:
    """What a widget holds beyond itself, let go once: when it is closed, or the viewer is."""

    def __init__(self) -> None:
        self._releases: list[Callable[[], object]] = []
        self.released = False

    def add(self, release: Callable[[], object]) -> None:
        """Have a function called at the end; it must not touch the widget, which may be gone by then."""
        self._releases.append(release)

    def connect(self, event: Any, callback: Callable[..., object]) -> None:
        """Connect to an event of napari until the end."""
        event.connect(callback)

        def disconnect() -> None:
            with contextlib.suppress(Exception):  # of a viewer that is gone already
                event.disconnect(callback)

        self.add(disconnect)

    def connect_signal(self, signal: Any, slot: Callable[..., object]) -> None:
        """Connect to a signal of something that outlives the widget until the end."""
        signal.connect(slot)

        def disconnect() -> None:
            # Of a widget that is gone its connections are, too; PySide then raises a SystemError.
            with contextlib.suppress(RuntimeError, TypeError, SystemError):
                signal.disconnect(slot)

        self.add(disconnect)

    def release(self) -> None:
        """Let go of everything, the last first."""
        self.released = True
        while self._releases:
            self._releases.pop()()


class Panel(QWidget):
    """Base of the widgets.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.

    Attributes
    ----------
    TITLE, HELP, PAGE : str
        Name, what it does in one or two plain sentences, and the page of the documents.
    RUN, RUN_TIP : str
        The button that starts, and its tooltip; empty for a widget without one.
    form : QFormLayout
        Where the controls go, between the heading and the buttons.
    resources : Resources
        What is let go when the widget is closed.
    """

    TITLE = ""
    HELP = ""
    PAGE = ""
    RUN = "Run"
    RUN_TIP = ""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # The menu's command knows by this text which parameter takes the viewer.
        initializer: Any = cls.__init__
        initializer.__annotations__["viewer"] = "napari.components.ViewerModel"

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        protect_constants()
        super().__init__(parent)
        self.viewer = viewer
        self.resources = Resources()
        self._job: BackgroundJob | None = None
        self._began_s = 0.0
        self._was_docked = False
        self._warnings: list[str] = []

        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(8, 8, 8, 8)
        heading = QLabel(f"<b>{self.TITLE}</b><br>{self.HELP}")
        heading.setWordWrap(True)
        column.addWidget(heading)
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        column.addLayout(self.form)

        self.run_button = QPushButton(self.RUN)
        self.run_button.setToolTip(self.RUN_TIP)
        self.run_button.clicked.connect(self._run_clicked)
        self.run_button.setVisible(bool(self.RUN))
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop what is running; what is complete stays.")
        self.cancel_button.setEnabled(False)
        self.cancel_button.clicked.connect(self.cancel)
        self.cancel_button.setVisible(bool(self.RUN))
        self.copy_button = QToolButton()
        self.copy_button.setText("Copy as ...")
        self.copy_button.setStyleSheet("QToolButton { padding-right: 16px; }")  # for the arrow beside it
        self.copy_button.setToolTip(
            "Copy what was just run as Python or as a command line, to repeat it in a script."
        )
        self.copy_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.copy_button)
        self.copy_python = menu.addAction("Python")
        self.copy_python.triggered.connect(lambda: self._copy("python"))
        self.copy_command = menu.addAction("Command line")
        self.copy_command.triggered.connect(lambda: self._copy("command"))
        self.copy_button.setMenu(menu)
        self.buttons = QHBoxLayout()
        for button in (self.run_button, self.cancel_button):
            self.buttons.addWidget(button)
        self.buttons.addStretch(1)
        self.buttons.addWidget(self.copy_button)
        column.addLayout(self.buttons)

        self.progress_bar = QProgressBar()
        self.progress_bar.setTextVisible(True)
        self.progress_bar.hide()
        self.stage = QLabel()
        self.stage.hide()
        self.message = QLabel()
        for label in (self.stage, self.message):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.hide()
        self.results = QVBoxLayout()
        for widget in (self.progress_bar, self.stage, self.message):
            column.addWidget(widget)
        column.addLayout(self.results, 1)
        column.addStretch(0)
        foot = QLabel(f"{RESEARCH_USE} Help: {self.PAGE}" if self.PAGE else RESEARCH_USE)
        foot.setEnabled(False)
        foot.setWordWrap(True)
        column.addWidget(foot)

        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        scroll.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(300)
        self.destroyed.connect(functools.partial(_release, self.resources))

    # What a widget says of itself.

    def run(self) -> None:
        """Start what the run button starts; a `LinceiError` is shown as a sentence."""
        raise NotImplementedError

    def repetition(self) -> Repetition | None:
        """Return how what was just run is done in a script; None before anything was."""
        return None

    # What widgets call.

    def add_row(self, label: str, widget: QWidget, tooltip: str = "") -> QWidget:
        """Add a control with its name to the form."""
        name = QLabel(label)
        if tooltip:
            widget.setToolTip(tooltip)
        name.setToolTip(widget.toolTip())
        name.setBuddy(widget)
        self.form.addRow(name, widget)
        return widget

    def run_job(
        self,
        job: Job,
        on_return: Callable[[Any], object],
        *,
        name: str = "job",
        on_progress: Callable[[Progress], object] | None = None,
    ) -> BackgroundJob:
        """Run a job in a thread and show its progress; one at a time.

        Parameters
        ----------
        job : callable
            ``job(progress, cancelled)``; it touches no layer and no widget.
        on_return : callable
            Takes what it returned, in the window's thread.
        name : str
            Names the thread.
        on_progress : callable, optional
            Takes each report too, in the window's thread.

        Raises
        ------
        LinceiError
            When another one is running.
        """
        if self.is_busy:
            raise LinceiError("something is running already", self.TITLE, "Wait for it, or cancel it.")
        running = BackgroundJob(job, name)
        # Kept by its thread, not by the widget: a widget that is closed leaves it to end by itself.
        _RUNNING.add(running)
        running.finished.connect(functools.partial(_RUNNING.discard, running))
        self._job = running
        self._began_s = time.monotonic()
        self._warnings.clear()
        self.message.hide()
        self.run_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self.progress_bar.setRange(0, 0)
        self.progress_bar.setFormat("")
        self.progress_bar.show()
        running.progressed.connect(self._show_progress)
        if on_progress is not None:
            running.progressed.connect(on_progress)
        running.warned.connect(self.add_warning)
        running.failed.connect(self.show_error)
        running.cancelled.connect(self._show_cancelled)
        running.returned.connect(functools.partial(self._take_result, on_return))
        running.finished.connect(self._end)
        self.resources.add(weakref.WeakMethod(running.cancel)() or running.cancel)
        running.start()
        return running

    @property
    def is_busy(self) -> bool:
        """Whether a job of this widget is running."""
        return self._job is not None

    def cancel(self) -> None:
        """Ask the running job to stop."""
        if self._job is not None:
            self.cancel_button.setEnabled(False)
            self.stage.setText("stopping ...")
            self._job.cancel()

    def say(self, text: str) -> None:
        """Show a sentence below the buttons."""
        self._show(text, "")

    def add_warning(self, sentence: str) -> None:
        """Show a sentence that the user should read, below those that are there; the result stands."""
        if sentence not in self._warnings:
            self._warnings.append(sentence)
        self._show("\n\n".join(self._warnings), _WARNING)

    def show_error(self, sentence: str | LinceiError, details: str = "") -> None:
        """Show what went wrong; ``details`` are for whoever is asked for help."""
        self._show(str(sentence), _ERROR)
        self.message.setToolTip(details)

    def guarded(self, function: Callable[[], Any]) -> Any:
        """Call a function and show its `LinceiError` as a sentence; return None then."""
        try:
            return function()
        except LinceiError as error:
            self.show_error(error)
            return None

    def close_down(self) -> None:
        """Let go of everything; called when the widget is taken out of the window."""
        self.resources.release()

    # Inside.

    def _run_clicked(self) -> None:
        self.message.hide()
        self.guarded(self.run)

    def _take_result(self, on_return: Callable[[Any], object], result: Any) -> None:
        if not self.resources.released:  # a job that ends after the window has none to show its result in
            self.guarded(lambda: on_return(result))

    def _show_progress(self, update: Progress) -> None:
        if update.total > 0:
            self.progress_bar.setRange(0, update.total)
            self.progress_bar.setValue(min(update.done, update.total))
            self.progress_bar.setFormat(_time_left(update, time.monotonic() - self._began_s))
        else:
            self.progress_bar.setRange(0, 0)
        self.stage.setText(update.message or update.stage)
        self.stage.show()

    def _show_cancelled(self) -> None:
        self.say("Stopped. What was complete before is still there.")

    def _end(self) -> None:
        self._job = None
        self.run_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.progress_bar.hide()
        self.stage.hide()

    def _show(self, text: str, color: str) -> None:
        self.message.setText(text)
        self.message.setToolTip("")
        self.message.setStyleSheet(f"color: {color};" if color else "")
        self.message.setVisible(bool(text))

    def _copy(self, kind: str) -> None:
        repetition = self.guarded(self.repetition)
        text = getattr(repetition, kind) if repetition is not None else ""
        if not text:
            self.say(
                "There is no command line for this." if repetition else "Run something first, then copy it."
            )
            return
        QGuiApplication.clipboard().setText(text)
        self.say("Copied. Paste it into a script or a terminal.")

    def event(self, event: QEvent) -> bool:
        """Notice when napari takes the widget out of its window: it then keeps nothing."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self.close_down()
                # Nobody else does: napari keeps no hold of it, and what its buttons are connected to does.
                self.deleteLater()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:  # noqa: N802
        """Let go of everything."""
        self.close_down()
        super().closeEvent(event)


# Jobs whose thread is running; their Qt side must live as long.
_RUNNING: set[BackgroundJob] = set()


def _release(resources: Resources, *_arguments: object) -> None:
    resources.release()


def _time_left(update: Progress, elapsed_s: float) -> str:
    """Return the percentage, and the time left when it can be told."""
    share = min(1.0, update.done / update.total)
    if share <= 0 or elapsed_s < 2:
        return f"{100 * share:.0f} %"
    left_s = elapsed_s * (1 - share) / share
    text = f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"
    return f"{100 * share:.0f} %, about {text} left"
