"""The widget of the augmented-reality microscope: the loop of ``lincei arm``, in the viewer."""

from __future__ import annotations

import dataclasses
import math
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QShortcut,
    QSlider,
    QToolButton,
    QWidget,
)

from arm_overlay.loop_status import STAGES, LoopStatus, question_of, rates_of, state_of
from arm_overlay.settings import ArmOptions
from lincei.errors import LinceiError, UsageError
from lincei.model import list_models
from lincei.progress import CancelCheck, ProgressCallback, stop_if_cancelled
from napari_plugin.background import BackgroundJob
from napari_plugin.live_layers import LiveLayers
from napari_plugin.live_session import LiveSession
from napari_plugin.option_form import OptionForm
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition, command_line, keyword_arguments

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from arm_overlay.arm_commands import Assembled
    from arm_overlay.cameras import CameraInfo
    from arm_overlay.displays import Monitor

SIMULATED = "simulated"
NO_DISPLAY = "none"
NOT_SET = "reported by the microscope"
HIDE_KEY = "F8"
ALIGN_METHODS = {
    "automatic": "Automatic: the camera sees the display",
    "landmarks": "With landmarks: you look into the eyepiece",
    "manual": "By hand, with the arrow keys",
}
# The network may follow the camera more closely than the viewer is drawn.
_MOST_PER_S = 30
_STATUS_MS = 250
_RATE_OVER_S = 2.0
_ENDING_LIMIT_S = 5.0
_STATE_COLORS = {"shown": "#2e8b57", "dark": "#808890", "trouble": "#d9534f"}


class Microscope(Panel):
    """Shows tumor outlines live: camera in, viewer and microdisplay out.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.

    Attributes
    ----------
    session : LiveSession or None
        What runs; None while nothing does.
    view : LiveLayers
        The layers of the live view.
    """

    TITLE = "Augmented-reality microscope"
    HELP = (
        "Takes the camera's picture, finds tumor in it, and shows the outline here and in the eyepiece. "
        "<b>Research use only. Not for diagnosis.</b>"
    )
    PAGE = "docs/napari.md"
    RUN = "Start"
    RUN_TIP = "Open the camera and show it here, with its overlay."

    # A control's error, from the thread in which it was carried out.
    _failed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self.session: LiveSession | None = None
        self.view = LiveLayers(viewer)
        self._last: ArmOptions | None = None
        self._drawn: object = None
        self._told = -1
        self._shown_at: list[float] = []
        self._due_s = 0.0
        self._shortcut: QShortcut | None = None
        self._has_looked = False
        self._failed.connect(self.show_error)
        self.cancel_button.setText("Stop")
        self.cancel_button.setToolTip("Stop, close the camera and the display in the eyepiece.")
        self._build_sources()
        self._build_controls()
        self._build_records()
        self._build_state()
        self._view_timer = QTimer(self)
        self._view_timer.setSingleShot(True)
        self._view_timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._view_timer.timeout.connect(self._redraw)
        self._status_timer = QTimer(self)
        self._status_timer.setInterval(_STATUS_MS)
        self._status_timer.timeout.connect(self._refresh)

    # The controls.

    def _build_sources(self) -> None:
        self.camera = QComboBox()
        self.camera.setEditable(True)
        self.camera.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        # Wide enough to read what is typed.
        self.camera.setMinimumContentsLength(24)
        self.camera.addItem("Simulated slide", SIMULATED)
        self.look_button = QToolButton()
        self.look_button.setText("Look")
        self.look_button.setToolTip("Look for cameras and monitors that are connected now.")
        self.look_button.clicked.connect(self.look)
        self.add_row(
            "Camera",
            _in_a_row(self.camera, self.look_button),
            "One that was found, or type what `lincei arm --camera` takes, such as usb:0 or "
            "file:movie.avi,loop.",
        )
        self.display = QComboBox()
        self.display.addItem("none: shown here only", NO_DISPLAY)
        self.align_button = QToolButton()
        self.align_button.setText("Align ...")
        self.align_button.setToolTip("Align camera and display for the objective that is set.")
        self.align_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.align_button)
        self.align_actions = {
            method: menu.addAction(text, partial(self._align_clicked, method))
            for method, text in ALIGN_METHODS.items()
        }
        self.align_button.setMenu(menu)
        self.align_button.setEnabled(False)
        self.display.currentIndexChanged.connect(self._display_chosen)
        self.add_row(
            "Display in the eyepiece",
            _in_a_row(self.display, self.align_button),
            "The monitor that is the microdisplay. The overlay covers all of it, so the operator's own "
            "screen is not offered. Nothing is shown there before camera and display are aligned.",
        )

    def _build_controls(self) -> None:
        models = [model.card.name for model in list_models("tumor")]
        self.options_form = OptionForm(
            ArmOptions,
            self.form,
            (
                *("model", "objective", "pixel_size_um", "mode", "smallest_um", "focus_gate"),
                *("brightness", "exposure_ms", "record_format", "gain", "top_speed", "precision"),
                "threads",
            ),
            labels={
                "mode": "Show",
                "focus_gate": "Hide out of focus",
                "brightness": "Brightness in the eyepiece",
                "pixel_size_um": "Size of a camera pixel (um)",
                "record_format": "Record as",
            },
            left_out={
                "pixel_size_um": "from the camera",
                "exposure_ms": "the camera's own",
                "gain": "its own",
            },
            choices={"model": models, "objective": (NOT_SET, *_usual_objectives())},
        )
        widgets = self.options_form.widgets
        widgets["model"].changed.connect(partial(self._steer, "model", "set_model"))
        widgets["objective"].changed.connect(self._objective_chosen)
        # Which one it is, when the loop asks and the one that is set already is the answer.
        widgets["objective"].native.activated.connect(self._objective_confirmed)
        widgets["mode"].changed.connect(partial(self._steer, "mode", "set_mode"))
        widgets["brightness"].changed.connect(partial(self._steer, "brightness", "set_brightness"))

        self.own_threshold = QCheckBox("the model's own threshold")
        self.own_threshold.setChecked(True)
        self.own_threshold.setToolTip("The threshold that the model's card states for the objective.")
        self.threshold = QSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(1, 99)
        self.threshold.setValue(50)
        self.threshold.setPageStep(5)
        self.threshold_text = QLabel()
        self.own_threshold.toggled.connect(self._threshold_changed)
        self.threshold.valueChanged.connect(self._threshold_moved)
        self.add_row(
            "Threshold",
            _in_a_row(self.threshold, self.threshold_text),
            "Probability above which a pixel counts as tumor.",
        )
        self.form.addRow("", self.own_threshold)
        self.full_resolution = QCheckBox("full resolution in the viewer")
        self.full_resolution.setToolTip(
            "Show each pixel of the camera here. It takes longer to draw; the network, the eyepiece and "
            "records always have the camera's own frames."
        )
        self.full_resolution.toggled.connect(lambda on: setattr(self.view, "full_resolution", on))
        self.form.addRow("", self.full_resolution)

    def _build_records(self) -> None:
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("'lincei arm' in your documents")
        browse = QToolButton()
        browse.setText("...")
        browse.setToolTip("Choose the folder.")
        browse.clicked.connect(self._choose_folder)
        self.add_row(
            "Folder for records",
            _in_a_row(self.folder, browse),
            "Snapshots and recordings go here; it is made when the first is written.",
        )
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("written into the snapshot")
        self.add_row("Comment", self.comment, "Your words for the next snapshot.")
        self.hide_button = QPushButton(f"Hide overlay ({HIDE_KEY})")
        self.hide_button.setCheckable(True)
        self.hide_button.setToolTip("Hide the overlay here and in the eyepiece, or show it again.")
        self.hide_button.clicked.connect(self.toggle_hidden)
        self.snapshot_button = QPushButton("Snapshot")
        self.snapshot_button.setToolTip("Save the newest frame, its overlay and all settings in a folder.")
        self.snapshot_button.clicked.connect(self.take_snapshot)
        self.record_button = QPushButton("Record")
        self.record_button.setCheckable(True)
        self.record_button.setToolTip("Record frames and answers until this is pressed again.")
        self.record_button.clicked.connect(self.toggle_recording)
        self._live_buttons = (self.hide_button, self.snapshot_button, self.record_button)
        self.form.addRow(_in_a_row(*self._live_buttons))
        for button in self._live_buttons:
            button.setEnabled(False)

    def _build_state(self) -> None:
        self.state, self.rates, self.stages = QLabel(), QLabel(), QLabel()
        for label in (self.state, self.rates, self.stages):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self.results.addWidget(label)
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(200)
        self.log.setMinimumHeight(80)
        self.log.setToolTip("What happened.")
        self.results.addWidget(self.log, 1)

    # Cameras and monitors.

    def showEvent(self, event: Any) -> None:  # noqa: N802
        """Look for cameras and monitors when the widget is seen first."""
        super().showEvent(event)
        if not self._has_looked:
            self._has_looked = True
            self.look()

    def look(self) -> None:
        """Look for cameras and monitors, in a thread; the microscope can be started meanwhile."""
        job = BackgroundJob(_found, "cameras")
        _LOOKING.add(job)
        job.finished.connect(partial(_LOOKING.discard, job))
        job.returned.connect(self._take_found)
        job.failed.connect(self.show_error)
        job.finished.connect(self._end_looking)
        self.look_button.setEnabled(False)
        self.resources.add(job.cancel)
        job.start()

    def _end_looking(self) -> None:
        self.look_button.setEnabled(True)

    def _take_found(self, found: tuple[list[CameraInfo], list[Monitor], list[str]]) -> None:
        cameras, monitors, problems = found
        chosen = self.camera_spec
        self.camera.clear()
        self.camera.addItem("Simulated slide", SIMULATED)
        for camera in cameras:
            if camera.spec != SIMULATED:
                self.camera.addItem(f"{camera.name} ({camera.spec})", camera.spec)
        _choose(self.camera, chosen)
        display = self.display.currentData()
        self.display.clear()
        self.display.addItem("none: shown here only", NO_DISPLAY)
        for monitor in monitors:
            if not monitor.own:
                self.display.addItem(monitor.text, monitor.name)
        self.display.setCurrentIndex(max(0, self.display.findData(display)))
        self.look_button.setToolTip(
            "\n".join(["Look for cameras and monitors that are connected now.", *problems])
        )

    @property
    def camera_spec(self) -> str:
        """What ``lincei arm --camera`` takes for the camera that is chosen or was typed."""
        index = self.camera.findText(self.camera.currentText())
        return str(self.camera.itemData(index)) if index >= 0 else self.camera.currentText().strip()

    def _display_chosen(self, *_: object) -> None:
        self.align_button.setEnabled(self.display.currentData() not in (None, NO_DISPLAY))

    # Start and stop.

    def options(self) -> ArmOptions:
        """Return the options of ``lincei arm`` that the controls say.

        Raises
        ------
        UsageError
            When one cannot be.
        """
        camera = self.camera_spec
        if not camera:
            raise UsageError("no camera is chosen", "", "Choose one, or type one such as usb:0.")
        folder = self.folder.text().strip()
        return self.options_form.options(
            camera=camera,
            display=str(self.display.currentData() or NO_DISPLAY),
            objective=self._objective,
            threshold=self._threshold,
            records=folder,
        )

    def run(self) -> None:
        """Start."""
        if self.is_busy:
            raise LinceiError("something is running already", self.TITLE, "Wait for it, or stop it.")
        options = self.options()
        session = LiveSession(options, self._failed.emit)
        self.view.begin()
        self._drawn, self._told = None, -1
        self._shown_at.clear()
        self.log.clear()
        self._last = options
        # Released in the opposite order: the job is told to stop, then its end is waited for.
        self.resources.add(session.stop)
        self.session = session
        self.run_job(session.run, self._take_statistics, name="microscope")
        self.stage.setText("opening the camera and the model ...")
        self.stage.show()
        self._status_timer.start()
        self._view_timer.start(0)

    @property
    def is_live(self) -> bool:
        """Whether the camera is open and frames are shown."""
        return self.session is not None and self.session.parts is not None

    def _take_statistics(self, statistics: dict[str, Any]) -> None:
        self.say(
            f"The film is over: {statistics['frames_out']} frames in {statistics['seconds']:.0f} s. "
            "The camera is free."
        )

    def _show_cancelled(self) -> None:
        self.say("Stopped." if self.session is None else "Stopped. The camera is free.")

    def _end(self) -> None:
        super()._end()
        if self.session is None:
            return
        self._tell_events()
        # It holds the last frame.
        self.session.loop = None
        self.session = None
        self._view_timer.stop()
        self._status_timer.stop()
        self.view.clear_overlay()
        self.view.finish()
        self.state.clear()
        self.rates.clear()
        self.stages.clear()
        self._show_live(False)

    def close_down(self) -> None:
        """Stop the loop and free the camera."""
        self._view_timer.stop()
        self._status_timer.stop()
        self._drop_shortcut()
        super().close_down()

    def _show_live(self, live: bool) -> None:
        """Enable what only works while it runs."""
        for button in self._live_buttons:
            button.setEnabled(live)
        if live and self._shortcut is None:
            # Works wherever the focus is in the window, as from a foot switch.
            self._shortcut = QShortcut(QKeySequence(HIDE_KEY), self.window())
            self._shortcut.setAutoRepeat(False)
            self._shortcut.activated.connect(self.toggle_hidden)
        if not live:
            self.hide_button.setChecked(False)
            self.record_button.setChecked(False)
            self.record_button.setText("Record")
            self._drop_shortcut()

    def _drop_shortcut(self) -> None:
        if self._shortcut is not None:
            self._shortcut.setEnabled(False)
            self._shortcut.deleteLater()
            self._shortcut = None

    # Steering.

    @property
    def _objective(self) -> str:
        chosen = str(self.options_form.widgets["objective"].value)
        return "" if chosen == NOT_SET else chosen

    @property
    def _threshold(self) -> float | None:
        return None if self.own_threshold.isChecked() else self.threshold.value() / 100

    def _objective_chosen(self, objective: str) -> None:
        if objective != NOT_SET:
            self._steer("objective", "set_objective", objective)

    def _objective_confirmed(self, *_: object) -> None:
        parts = self.session.parts if self.session is not None else None
        if parts is not None and question_of(parts.loop.status()):
            self._objective_chosen(str(self.options_form.widgets["objective"].value))

    def _threshold_changed(self, *_: object) -> None:
        if not self.own_threshold.isChecked():
            self.threshold_text.setText(f"{self.threshold.value()} %")
        self._steer("threshold", "set_threshold", self._threshold)

    def _threshold_moved(self, *_: object) -> None:
        if self.own_threshold.isChecked():
            self.own_threshold.setChecked(False)  # which sets it
        else:
            self._threshold_changed()

    def _steer(self, field: str, method: str, value: Any) -> None:
        """Change something while it runs."""
        if self.session is None or self._last is None:
            return
        self._last = dataclasses.replace(self._last, **{field: value})
        self.session.do(method, value)

    def toggle_hidden(self, *_: object) -> None:
        """Hide the overlay, or show it again: at once, whatever else is being done."""
        parts = self.session.parts if self.session is not None else None
        if parts is not None:
            parts.loop.toggle_hidden()
            self._drawn = None
            self._refresh()

    def take_snapshot(self, *_: object) -> None:
        """Save the newest frame and all that belongs to it."""
        if self.session is not None:
            self.session.do("snapshot", self.comment.text().strip())
            self.comment.clear()

    def toggle_recording(self, *_: object) -> None:
        """Start or stop recording."""
        parts = self.session.parts if self.session is not None else None
        if self.session is not None and parts is not None:
            recording = bool(parts.loop.status().recording)
            self.session.do("stop_recording" if recording else "start_recording")

    def _choose_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Folder for records", self.folder.text())
        if chosen:
            self.folder.setText(chosen)

    # What is shown.

    def _redraw(self) -> None:
        """Show the newest frame with its overlay, and choose when to look again."""
        if self.session is None:
            return
        began_s = time.monotonic()
        parts = self.session.parts
        if parts is not None:
            self._show_newest(parts, began_s)
        now_s = time.monotonic()
        # It comes late when the window was busy drawing; it then has the chance to answer the user.
        late_s = max(0.0, began_s - self._due_s) if self._due_s else 0.0
        wait_s = max(0.002, 1 / _MOST_PER_S - (now_s - began_s) - late_s)
        self._due_s = now_s + wait_s
        self._view_timer.start(math.ceil(1e3 * wait_s))

    def _show_newest(self, parts: Assembled, now_s: float) -> None:
        """Show the newest frame if it is another; without its overlay when that may not be shown."""
        status, latest = parts.loop.status(), parts.loop.latest()
        dark = status.hidden or bool(status.camera_trouble or status.model_trouble)
        if dark:
            self.view.clear_overlay()
        if latest is not None and latest is not self._drawn:
            self._drawn = latest
            frame, overlay = latest
            try:
                self.view.show(frame, overlay, parts.colors.developing, dark=dark, time_s=now_s)
            except LinceiError as error:
                self.show_error(error)
            except Exception as error:  # a picture that stands still would mislead
                if self.session is not None:
                    self.session.fail(error)
            self._shown_at.append(now_s)

    @property
    def shown_per_s(self) -> float:
        """Frames that the viewer showed a second, lately."""
        now_s = time.monotonic()
        self._shown_at = [moment for moment in self._shown_at if now_s - moment < _RATE_OVER_S]
        if len(self._shown_at) < 2:
            return 0.0
        return (len(self._shown_at) - 1) / max(1e-6, self._shown_at[-1] - self._shown_at[0])

    def _refresh(self) -> None:
        """Say how the loop stands."""
        self._tell_events()
        parts = self.session.parts if self.session is not None else None
        if parts is None:
            return
        self.progress_bar.hide()
        self.stage.hide()
        status = parts.loop.status()
        self._show_live(True)
        self._show_state(status)
        self.hide_button.setChecked(status.hidden)
        self.hide_button.setText(f"{'Show' if status.hidden else 'Hide'} overlay ({HIDE_KEY})")
        self.record_button.setChecked(bool(status.recording))
        self.record_button.setText("Stop recording" if status.recording else "Record")
        if self.own_threshold.isChecked() and status.threshold_in_use is not None:
            percent = round(100 * status.threshold_in_use)
            self.threshold_text.setText(f"{percent} %")
            if not self.threshold.isSliderDown():
                self.threshold.blockSignals(True)
                self.threshold.setValue(percent)
                self.threshold.blockSignals(False)

    def _show_state(self, status: LoopStatus) -> None:
        kind, sentence = state_of(status)
        if kind == "dark" and status.display == "none" and status.blank_reason:
            sentence = f"No overlay: {status.blank_reason}"
        lines = [question_of(status) or sentence, *status.warnings]
        lines += [status.recording_trouble] if status.recording_trouble else []
        if self.view.is_removed:
            lines.append("The picture was removed from the viewer; it comes again when you stop and start.")
        lines.append(f"Objective: {status.objective or 'unknown'}. Camera: {status.camera}.")
        if status.recording:
            dropped = f", {status.recording_dropped} frames not kept" if status.recording_dropped else ""
            lines.append(f"Recording to {status.recording}{dropped}")
        self.state.setText("\n".join(lines))
        style = f"color: {_STATE_COLORS[kind]}; font-weight: bold;"
        if self.state.styleSheet() != style:  # the same one again would be worked out anew
            self.state.setStyleSheet(style)
        width, height = self.view.picture_px
        self.rates.setText(
            f"{rates_of(status)}\nviewer: {self.shown_per_s:.1f} frames/s, shown at {width} x {height}"
        )
        times = (f"{stage} {status.stages_ms[stage]:.1f}" for stage in STAGES if stage in status.stages_ms)
        self.stages.setText(f"ms: {', '.join(times)}")

    def _tell_events(self) -> None:
        """Write what happened since the last time into the log."""
        session = self.session
        if session is None:
            return
        while session.sentences:
            self.log.appendPlainText(session.sentences.popleft())
        for event in session.loop.status().events if session.loop is not None else ():
            if event.number > self._told:
                self._told = event.number
                self.log.appendPlainText(f"{event.source}: {event.text}")

    # Alignment.

    def align_command(self, method: str) -> list[str]:
        """Return the arguments of ``lincei`` that align the chosen camera and display.

        Raises
        ------
        UsageError
            When no objective or no display is set.
        """
        options = self.options()
        if options.display == NO_DISPLAY:
            raise UsageError("no display is chosen", "", "Choose the display in the eyepiece first.")
        if not options.objective:
            raise UsageError(
                "no objective is set", "", "Choose it first: each objective has an alignment of its own."
            )
        words = ["arm", "align", "--camera", options.camera, "--display", options.display]
        words += ["--objective", options.objective, "--method", method]
        return words + (["--exposure-ms", f"{options.exposure_ms:g}"] if options.exposure_ms else [])

    def _align_clicked(self, method: str) -> None:
        self.guarded(partial(self.align, method))

    def align(self, method: str) -> None:
        """Align camera and display in a program and window of its own, which needs the camera."""
        if self.session is not None:
            raise LinceiError("the camera is in use", "Align", "Press Stop first.")
        command = [sys.executable, "-P", "-m", "lincei", *self.align_command(method)]
        self.run_job(partial(_aligned, command), self.say, name="align")
        self.stage.setText("Aligning. Where a window opens, follow it; Stop ends this.")
        self.stage.show()

    # The same without a window.

    def repetition(self) -> Repetition | None:
        """Return ``lincei arm`` with the same options."""
        if self._last is None:
            return None
        arguments = ",\n    ".join(keyword_arguments(self._last))
        python = (
            "from arm_overlay.arm_commands import run_arm\n"
            "from arm_overlay.settings import ArmOptions\n\n"
            f"options = ArmOptions(\n    {arguments},\n)\n"
            "# Runs until its window is closed.\n"
            "run_arm(options, cancelled=lambda: False)\n"
        )
        return Repetition(python, command_line("arm", (), self._last))


# Looks that are going on; their Qt side must live as long as the thread.
_LOOKING: set[BackgroundJob] = set()


def _usual_objectives() -> tuple[str, ...]:
    from arm_overlay.objectives import COMMON_MAGNIFICATIONS
    from arm_overlay.tumor_model import objective_of

    return tuple(map(objective_of, COMMON_MAGNIFICATIONS))


def _in_a_row(*widgets: QWidget) -> QWidget:
    """Return widgets beside each other, the first as wide as there is room."""
    box = QWidget()
    row = QHBoxLayout(box)
    row.setContentsMargins(0, 0, 0, 0)
    for number, widget in enumerate(widgets):
        row.addWidget(widget, 1 if number == 0 else 0)
    return box


def _choose(box: QComboBox, spec: str) -> None:
    """Choose a camera again, though it may have been typed."""
    index = box.findData(spec)
    if index >= 0:
        box.setCurrentIndex(index)
    else:
        box.setEditText(spec)


def _found(
    progress: ProgressCallback,  # noqa: ARG001
    cancelled: CancelCheck,
) -> tuple[list[CameraInfo], list[Monitor], list[str]]:
    """Return cameras, monitors, and sentences on what could not be looked for."""
    from arm_overlay.cameras import list_cameras
    from arm_overlay.displays import list_monitors

    cameras, problems = list_cameras()
    stop_if_cancelled(cancelled)
    try:
        monitors = list_monitors()
    except LinceiError as error:
        monitors = []
        problems = [*problems, str(error)]
    return cameras, monitors, problems


def _aligned(command: list[str], progress: ProgressCallback, cancelled: CancelCheck) -> str:  # noqa: ARG001
    """Run ``lincei arm align`` and return what it says at the end.

    Raises
    ------
    LinceiError
        When it could not align; it is the program's own sentence.
    """
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while True:
            try:
                said, troubles = running.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                stop_if_cancelled(cancelled)
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
            try:
                running.communicate(timeout=_ENDING_LIMIT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
    sentence = said.strip()
    # 1 is an alignment that is stored or checked, but not good enough: its sentence says so.
    if running.returncode in (0, 1) and sentence:
        return sentence
    lines = [line for line in troubles.splitlines() if line.strip()]
    raise LinceiError(lines[-1] if lines else "it ended without a word", "Align", "")
