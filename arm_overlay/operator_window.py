"""The operator's window: what the camera sees with its overlay, how the loop does, and all controls.

It only looks at the loop and steers it: frames are fetched when the window is ready for one, and made small
before they are converted, so that a slow screen costs the loop nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from arm_overlay.developing import NEUTRAL, Developing, shrunken
from arm_overlay.live_view import STYLE_SHEET, LiveView, add_keys, heading, key_table, notice
from arm_overlay.loop import Loop
from arm_overlay.loop_status import STAGES, Event, LoopStatus, question_of, rates_of, state_of
from arm_overlay.objectives import OBJECTIVES
from arm_overlay.overlay import MODE_NAMES, MODES
from arm_overlay.rendering import Renderer
from lincei.batch import readable_error
from lincei.errors import LinceiError

# Those of the objectives come before them: `keys_of`.
KEYS = {
    "F1 ... F5": "Show outline, heat map, text, arrows, pulsing outline",
    "Space": "Hide everything in the eyepiece, or show it again; for a foot switch",
    "S": "Snapshot, with the comment that was typed",
    "C": "Type a comment; Enter takes the snapshot, Esc leaves",
    "R": "Start or stop recording",
    "+, -": "Threshold up or down by 1 %",
    "0": "The model's own threshold",
    "Page up, Page down": "Brighter, darker by 5 %",
    "M": "Choose the model with the arrow keys",
    "?": "These keys",
    "Ctrl+Q": "End",
}

REDRAWS_PER_S = 30
_STATUS_MS = 250
# Of the time, at most this part goes into redrawing.
_BUSY_SHARE = 0.25
_EVENTS_SHOWN = 200
_PANEL_PX = 340
# So many objectives have a key, from 1 on; turrets have seven places at most.
_MOST_OBJECTIVES = 9


class OperatorWindow(QWidget):
    """Shows how a running loop stands, and steers it; closing it stops the loop.

    Parameters
    ----------
    loop : Loop
        Started, or about to be.
    developing : Developing
        White balance and the like, for the live view.
    objectives : sequence of str
        Those in the turret, on the keys 1, 2, ...; at most nine.
    models : sequence of str, optional
        Names to choose from; the tumor models that are installed when left out.
    """

    # A control's error, from the thread in which it was carried out.
    _failed = Signal(str)

    def __init__(
        self,
        loop: Loop,
        developing: Developing = NEUTRAL,
        *,
        objectives: Sequence[str] = OBJECTIVES,
        models: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._loop = loop
        # It may change with the objective.
        self.developing = developing
        self._objectives = tuple(objectives)[:_MOST_OBJECTIVES]
        self._renderer: Renderer | None = None
        self._drawn: object = None
        self._told = -1
        self._began_s = time.monotonic()
        # A model may take a second to load; the window goes on meanwhile.
        self._controls = ThreadPoolExecutor(1, thread_name_prefix="operator")
        self._failed.connect(self._tell)
        self.redraws = 0

        self.setWindowTitle("lincei: augmented-reality microscope")
        self.setStyleSheet(STYLE_SHEET)
        self._build(_model_names() if models is None else models)
        add_keys(self, self._keys())
        add_keys(self, self._held_keys(), repeat=True)
        self._place()
        self._view_timer = QTimer(self)
        self._view_timer.setSingleShot(True)
        self._view_timer.timeout.connect(self._redraw)
        self._status_timer = QTimer(self)
        self._status_timer.timeout.connect(self._refresh)
        self._refresh()
        self._status_timer.start(_STATUS_MS)
        self._view_timer.start(0)

    # -- the window ---------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Take most of the main screen; the eyepiece's is never taken."""
        screen = QGuiApplication.primaryScreen()
        if screen is not None:
            self.setScreen(screen)
            free = screen.availableGeometry()
            wide, high = min(1500, round(0.92 * free.width())), min(980, round(0.9 * free.height()))
            self.setGeometry(
                free.x() + (free.width() - wide) // 2, free.y() + (free.height() - high) // 2, wide, high
            )

    def _build(self, models: Sequence[str]) -> None:
        self._view = LiveView()
        self._state, self._warning = QLabel(), QLabel()
        self._state.setObjectName("state")
        self._warning.setObjectName("warning")
        for label in (self._state, self._warning):
            label.setWordWrap(True)
        self._log = QPlainTextEdit()
        self._log.setReadOnly(True)
        self._log.setMaximumBlockCount(_EVENTS_SHOWN)
        self._log.setFixedHeight(110)
        self._log.setAccessibleName("What happened")
        self._log.setTabChangesFocus(True)

        left = QVBoxLayout()
        left.addWidget(self._state)
        left.addWidget(self._question())
        left.addWidget(self._warning)
        left.addWidget(self._view, 1)
        left.addWidget(self._log)

        panel = QWidget()
        side = QVBoxLayout(panel)
        side.setContentsMargins(4, 0, 8, 0)
        side.setSpacing(6)
        for part in (
            *self._choices(models),
            *self._levels(),
            *self._actions(),
            heading("SPEED"),
            self._speed(),
            heading("IN USE"),
            self._in_use(),
        ):
            side.addWidget(part)
        side.addStretch(1)
        keys = QPushButton("Keys  (?)")
        keys.clicked.connect(self.show_keys)
        side.addWidget(keys)
        scroll = QScrollArea()
        scroll.setWidget(panel)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFixedWidth(_PANEL_PX)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)

        row = QHBoxLayout()
        row.addLayout(left, 1)
        row.addWidget(scroll)
        page = QVBoxLayout(self)
        page.setContentsMargins(8, 8, 8, 8)
        page.addWidget(notice())
        page.addLayout(row, 1)

    def _question(self) -> QFrame:
        self._ask = QFrame()
        self._ask.setObjectName("question")
        row = QHBoxLayout(self._ask)
        self._ask_text = QLabel()
        self._ask_text.setWordWrap(True)
        row.addWidget(self._ask_text, 1)
        for number, objective in enumerate(self._objectives, 1):
            button = QPushButton(f"{objective}  ({number})")
            button.clicked.connect(partial(self.choose_objective, objective))
            row.addWidget(button)
        self._ask.hide()
        return self._ask

    def _choices(self, models: Sequence[str]) -> list[QWidget]:
        self._objective_buttons, objectives = _buttons(
            [(objective, objective, str(number)) for number, objective in enumerate(self._objectives, 1)],
            self.choose_objective,
        )
        self._mode_buttons, modes = _buttons(
            [(mode, MODE_NAMES[mode], f"F{number}") for number, mode in enumerate(MODES, 1)],
            self.choose_mode,
        )
        self._model = QComboBox()
        self._model.setAccessibleName("Model")
        self._model.addItems(list(models))
        self._model.activated.connect(lambda _: self.choose_model(self._model.currentText()))
        return [
            heading("OBJECTIVE"),
            objectives,
            heading("MODEL"),
            self._model,
            heading("SHOW"),
            modes,
        ]

    def _levels(self) -> list[QWidget]:
        self._threshold, self._threshold_text = self._slider("Threshold", 1, 99)
        self._brightness, self._brightness_text = self._slider("Brightness", 0, 100)
        self._threshold.valueChanged.connect(lambda value: self.set_threshold(value / 100))
        self._brightness.valueChanged.connect(lambda value: self.set_brightness(value / 100))
        own = QPushButton("Own  (0)")
        own.setToolTip("The model's own threshold for the objective")
        own.clicked.connect(partial(self.set_threshold, None))
        row = QWidget()
        pair = QHBoxLayout(row)
        pair.setContentsMargins(0, 0, 0, 0)
        pair.addWidget(self._threshold, 1)
        pair.addWidget(own)
        return [
            self._threshold_text,
            row,
            self._brightness_text,
            self._brightness,
        ]

    def _slider(self, name: str, low: int, high: int) -> tuple[QSlider, QLabel]:
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setRange(low, high)
        slider.setPageStep(5)
        slider.setAccessibleName(name)
        return slider, heading(name.upper())

    def _actions(self) -> list[QWidget]:
        self._hide = QPushButton("Hide everything  (Space)")
        self._hide.setObjectName("hide")
        self._hide.setCheckable(True)
        self._hide.clicked.connect(self.toggle_hidden)
        self._comment = QLineEdit()
        self._comment.setPlaceholderText("Comment for the snapshot  (C)")
        self._comment.setAccessibleName("Comment for the snapshot")
        self._comment.returnPressed.connect(self.take_snapshot)
        self._comment.installEventFilter(self)
        snapshot = QPushButton("Snapshot  (S)")
        snapshot.clicked.connect(self.take_snapshot)
        self._record = QPushButton("Record  (R)")
        self._record.setObjectName("record")
        self._record.setCheckable(True)
        self._record.clicked.connect(self.toggle_recording)
        row = QWidget()
        pair = QHBoxLayout(row)
        pair.setContentsMargins(0, 0, 0, 0)
        pair.addWidget(snapshot)
        pair.addWidget(self._record)
        return [heading("EYEPIECE AND RECORDS"), self._hide, self._comment, row]

    def _speed(self) -> QWidget:
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        self._rates = QLabel()
        self._rates.setWordWrap(True)
        grid.addWidget(self._rates, 0, 0, 1, 3)
        self._stages: dict[str, tuple[QProgressBar, QLabel]] = {}
        for row, stage in enumerate(STAGES, 1):
            bar, text, name = QProgressBar(), QLabel("-"), QLabel(stage)
            bar.setTextVisible(False)
            bar.setFixedHeight(6)
            name.setObjectName("key")
            text.setAlignment(Qt.AlignmentFlag.AlignRight)
            text.setMinimumWidth(64)
            grid.addWidget(name, row, 0)
            grid.addWidget(bar, row, 1)
            grid.addWidget(text, row, 2)
            self._stages[stage] = (bar, text)
        return box

    def _in_use(self) -> QLabel:
        self._used = QLabel()
        self._used.setWordWrap(True)
        self._used.setTextFormat(Qt.TextFormat.PlainText)
        return self._used

    def _keys(self) -> list[tuple[str, Callable[[], object]]]:
        keys: list[tuple[str, Callable[[], object]]] = [
            *(
                (str(number), partial(self.choose_objective, objective))
                for number, objective in enumerate(self._objectives, 1)
            ),
            *((f"F{number}", partial(self.choose_mode, mode)) for number, mode in enumerate(MODES, 1)),
            ("Space", self.toggle_hidden),
            ("S", self.take_snapshot),
            ("C", self._comment.setFocus),
            ("R", self.toggle_recording),
            ("0", partial(self.set_threshold, None)),
            ("M", self._model.setFocus),
            ("?", self.show_keys),
            ("Shift+?", self.show_keys),
            ("Ctrl+Q", self.close),
        ]
        return keys

    def _held_keys(self) -> list[tuple[str, Callable[[], object]]]:
        """Return the keys that go on while they are held."""
        return [
            ("-", partial(self._threshold_by, -1)),
            # Where plus takes a shift, the key alone does too.
            *((key, partial(self._threshold_by, 1)) for key in ("+", "=", "Shift++")),
            ("PgUp", partial(self._brightness_by, 5)),
            ("PgDown", partial(self._brightness_by, -5)),
        ]

    # -- controls -----------------------------------------------------------------------------------------

    def choose_objective(self, objective: str, *_: object) -> None:
        """Say which objective is in the light path."""
        self._do(self._loop.set_objective, objective)

    def choose_mode(self, mode: str, *_: object) -> None:
        """Choose what is shown."""
        self._do(self._loop.set_mode, mode)

    def choose_model(self, model: str) -> None:
        """Use another model."""
        self._view.setFocus()
        self._do(self._loop.set_model, model)

    def set_threshold(self, threshold: float | None, *_: object) -> None:
        """Set the threshold; None for the model's own."""
        self._do(self._loop.set_threshold, threshold)

    def set_brightness(self, brightness: float) -> None:
        """Set the brightness of the eyepiece's display, 0 to 1."""
        self._do(self._loop.set_brightness, brightness)

    def toggle_hidden(self, *_: object) -> None:
        """Hide everything in the eyepiece, or show it again: at once, whatever else is being done."""
        self._loop.toggle_hidden()
        self._refresh()

    def take_snapshot(self, *_: object) -> None:
        """Save the newest frame and all that belongs to it."""
        comment = self._comment.text().strip()
        self._comment.clear()
        self._view.setFocus()
        self._do(self._loop.snapshot, comment)

    def toggle_recording(self, *_: object) -> None:
        """Start or stop recording."""
        recording = bool(self._loop.status().recording)
        self._do(self._loop.stop_recording if recording else self._loop.start_recording)

    def _threshold_by(self, percent: int) -> None:
        self._threshold.setValue(self._threshold.value() + percent)

    def _brightness_by(self, percent: int) -> None:
        self._brightness.setValue(self._brightness.value() + percent)

    def _do(self, act: Callable[..., object], *values: object) -> None:
        """Carry a control out in its thread, one after the other."""
        self._controls.submit(act, *values).add_done_callback(self._was_done)

    def _was_done(self, future: Future[Any]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._failed.emit(str(readable_error(error) or f"{type(error).__name__}: {error}"))

    def show_keys(self) -> None:
        """Show what the keys do."""
        self._keys_dialog = QDialog(self)
        self._keys_dialog.setWindowTitle("Keys")
        page = QVBoxLayout(self._keys_dialog)
        page.addWidget(key_table(keys_of(self._objectives)))
        close = QPushButton("Close  (Esc)")
        close.clicked.connect(self._keys_dialog.close)
        page.addWidget(close)
        self._keys_dialog.setMinimumWidth(480)
        self._keys_dialog.show()

    # -- what is shown ------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        """Draw the newest frame with its overlay, and choose when to look again."""
        began_s = time.monotonic()
        latest = self._loop.latest()
        if latest is not None and latest is not self._drawn and self.isVisible():
            self._drawn = latest
            frame, overlay = latest
            try:
                picture = shrunken(frame, self._view.fits_px, self.developing)
                size = (picture.shape[1], picture.shape[0])
                if self._renderer is None or self._renderer.size_px != size:
                    self._renderer = Renderer(size)
                self._view.show_picture(self._renderer.draw_over(picture, overlay, time_s=began_s))
            except LinceiError as error:
                self._tell(str(error))
            self.redraws += 1
        took_s = time.monotonic() - began_s
        self._view_timer.start(round(1000 * max(1 / REDRAWS_PER_S - took_s, took_s / _BUSY_SHARE - took_s)))

    def _refresh(self) -> None:
        """Say how the loop stands."""
        status = self._loop.status()
        self._show_state(status)
        self._show_question(status)
        self._show_controls(status)
        self._show_speed(status)
        self._show_used(status)
        for event in status.events:
            if event.number > self._told:
                self._told = event.number
                self._show_event(event)
        if self._loop.finished:
            self.close()

    def _show_state(self, status: LoopStatus) -> None:
        kind, text = state_of(status)
        self._state.setText(text)
        if self._state.property("kind") != kind:
            self._state.setProperty("kind", kind)
            # The style sheet is read again only when asked.
            self._state.style().polish(self._state)
        warnings = [*status.warnings, *([status.recording_trouble] if status.recording_trouble else [])]
        self._warning.setText("\n".join(warnings))
        self._warning.setVisible(bool(warnings))

    def _show_question(self, status: LoopStatus) -> None:
        question = question_of(status)
        self._ask_text.setText(question)
        self._ask.setVisible(bool(question))

    def _show_controls(self, status: LoopStatus) -> None:
        """Let the controls say what is set, without setting it again."""
        for buttons, value in (
            (self._objective_buttons, status.objective),
            (self._mode_buttons, status.mode),
        ):
            for button in buttons:
                button.setChecked(button.property("value") == value)
        if self._model.findText(status.model) < 0 and status.model:
            self._model.addItem(status.model)
        if not self._model.view().isVisible() and not self._model.hasFocus():
            self._model.setCurrentText(status.model)
        said = ["the model's own"] if status.threshold is None else []
        if status.threshold_in_use is not None:
            percent = round(100 * status.threshold_in_use)
            _set_quietly(self._threshold, percent)
            said.append(f"{percent} %")
        self._threshold_text.setText(f"THRESHOLD  {', '.join(said)}")
        _set_quietly(self._brightness, round(100 * status.brightness))
        self._brightness_text.setText(f"BRIGHTNESS IN THE EYEPIECE  {100 * status.brightness:.0f} %")
        self._hide.setChecked(status.hidden)
        self._hide.setText("Show again  (Space)" if status.hidden else "Hide everything  (Space)")
        self._record.setChecked(bool(status.recording))
        self._record.setText("Stop recording  (R)" if status.recording else "Record  (R)")

    def _show_speed(self, status: LoopStatus) -> None:
        self._rates.setText(rates_of(status))
        slowest = max((status.stages_ms.get(stage, 0.0) for stage in self._stages), default=0.0)
        for stage, (bar, label) in self._stages.items():
            took_ms = status.stages_ms.get(stage)
            label.setText("-" if took_ms is None else f"{took_ms:.1f} ms")
            bar.setRange(0, 1000)
            bar.setValue(round(1000 * took_ms / slowest) if took_ms and slowest else 0)

    def _show_used(self, status: LoopStatus) -> None:
        aligned = "not aligned" if status.warnings else "aligned" if status.display != "none" else "none"
        lines = [
            f"Camera: {status.camera or 'none'}",
            f"Display: {status.display}",
            f"Alignment: {aligned}",
        ]
        if status.recording:
            dropped = f", {status.recording_dropped} frames not kept" if status.recording_dropped else ""
            lines.append(f"Recording: {status.recording}{dropped}")
        self._used.setText("\n".join(lines))

    def _show_event(self, event: Event) -> None:
        seconds = max(0.0, event.time_s - self._began_s)
        self._log.appendPlainText(
            f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}  {event.source}: {event.text}"
        )

    def _tell(self, text: str) -> None:
        """Say what could not be done."""
        self._show_event(Event(0, time.monotonic(), "operator", text))

    # -- Qt -----------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Leave the comment with Esc."""
        if (
            watched is self._comment
            and event.type() == QEvent.Type.KeyPress
            and event.key() == Qt.Key.Key_Escape  # type: ignore[attr-defined]
        ):
            self._view.setFocus()
            return True
        return super().eventFilter(watched, event)

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop the loop."""
        self._view_timer.stop()
        self._status_timer.stop()
        self._controls.shutdown(wait=False, cancel_futures=True)
        self._loop.stop()
        event.accept()


def keys_of(objectives: Sequence[str]) -> dict[str, str]:
    """Return what the keys do, with those of the objectives."""
    numbers = " ".join(str(number) for number in range(1, len(objectives) + 1))
    return {numbers: f"Objective {', '.join(objectives)}; a foot switch can send these keys", **KEYS}


def _model_names() -> list[str]:
    from lincei.model import list_models

    return [model.card.name for model in list_models("tumor")]


def _buttons(
    entries: Sequence[tuple[str, str, str]], chosen: Callable[[str], object]
) -> tuple[list[QPushButton], QWidget]:
    """Return buttons of which one is down, three or four in a row: values, names and keys are given."""
    box = QWidget()
    grid = QGridLayout(box)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setSpacing(4)
    # No group of Qt's: the loop says which one is down, and each is reached with the Tab key.
    buttons: list[QPushButton] = []
    columns = 4 if len(entries) == 4 else 3
    for index, (value, name, key) in enumerate(entries):
        button = QPushButton(name)
        button.setCheckable(True)
        button.setToolTip(f"Key {key}")
        button.setProperty("value", value)
        button.clicked.connect(partial(chosen, value))
        buttons.append(button)
        grid.addWidget(button, index // columns, index % columns)
    return buttons, box


def _set_quietly(slider: QSlider, value: int) -> None:
    """Set a slider that nobody holds, without the loop being told."""
    if not slider.isSliderDown() and slider.value() != value:
        slider.blockSignals(True)
        slider.setValue(value)
        slider.blockSignals(False)
