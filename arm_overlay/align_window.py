"""The operator's window while camera and display are aligned by an observer at the eyepiece."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from arm_overlay.aligning import (
    Aligned,
    LandmarkAlignment,
    ManualAlignment,
    PictureDisplay,
    draw_lines,
    gray_of,
    judged,
    new_alignment,
    stored_as,
)
from arm_overlay.cameras import Camera
from arm_overlay.developing import shrunken
from arm_overlay.display_alignment import GOOD_BY_EYE_PX, Alignment, AlignmentError, mapped
from arm_overlay.frames import Frame
from arm_overlay.imaging import opencv
from arm_overlay.live_view import (
    RGB,
    STYLE_SHEET,
    LiveView,
    add_keys,
    application,
    key_table,
    notice,
)
from arm_overlay.rendering import GREEN, fit
from lincei.errors import LinceiError

_REDRAW_MS = 66
_PICTURE_LASTS_S = 1.5
_FIRST_FRAME_S = 10.0
_FAR_PX = 10.0
_AMBER = (255, 190, 60)

LANDMARK_KEYS = {
    "Arrows": "Move the cross in the eyepiece by a pixel; with Shift by ten",
    "Enter": "The cross is on the landmark: keep it and go on",
    "N, P": "Next or previous landmark",
    "S": "Save",
    "Esc": "Leave without saving",
}
MANUAL_KEYS = {
    "Arrows": "Shift the circles in the eyepiece by a pixel; with Shift by ten",
    "+, -": "Larger, smaller by 0.2 %; with Ctrl by 2 %",
    "], [": "Turn by 0.1 degrees; with Ctrl by 2 degrees",
    "M": "Mirror",
    "S": "Save",
    "Esc": "Leave without saving",
}
_LANDMARK_TEXT = (
    "Look into the eyepiece and move the cross onto the place that is circled here; then press Enter. "
    "Leave the slide where it is."
)
_MANUAL_TEXT = (
    "Bring something distinct to the middle of the circles here. In the eyepiece, move, turn and scale the "
    "circles until they surround it there too, and the tick lies on the same tissue."
)


class AlignWindow(QWidget):
    """Shows the camera's view with what the observer is to look for, and takes the keys.

    Parameters
    ----------
    camera : Camera
        Opened. It is read in a thread of its own until the window is closed.
    display : PictureDisplay
        Where the cross or the target is shown.
    objective : str
        Such as ``"20x"``.
    method : str
        ``"landmarks"`` or ``"manual"``.
    start : Alignment, optional
        Where to begin.
    checking : bool
        Judge ``start`` by the landmarks instead of fitting a new alignment.
    """

    def __init__(
        self,
        camera: Camera,
        display: PictureDisplay,
        objective: str,
        method: str,
        *,
        start: Alignment | None = None,
        checking: bool = False,
    ) -> None:
        super().__init__()
        self._camera, self._display = camera, display
        self._objective, self._method = objective, method
        self._start, self._checking = start, checking
        self._frames = _NewestFrame(camera)
        self._frame = self._frames.first()
        self._gray = gray_of(self._frame)
        size = display.monitor.size_px
        self.landmarks: LandmarkAlignment | None = None
        self.manual: ManualAlignment | None = None
        try:
            if method == "landmarks":
                self.landmarks = LandmarkAlignment(self._gray, size, None if start is None else start.matrix)
            elif start is not None:
                self.manual = ManualAlignment.from_alignment(start)
            else:
                self.manual = ManualAlignment(self._frame.size_px, size)
        except LinceiError:
            self._frames.close()
            raise
        self.aligned: Aligned | None = None
        self._there, self._refused = True, ""
        self._build()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._timer.start(_REDRAW_MS)
        self._tick()

    # -- the window ---------------------------------------------------------------------------------------

    def _build(self) -> None:
        doing = "Check" if self._checking else "Align"
        how = "with landmarks" if self.landmarks is not None else "by hand"
        self.setWindowTitle(f"lincei: {doing.lower()} {self._objective}")
        self.setStyleSheet(STYLE_SHEET)
        self._view = LiveView()
        title = QLabel(f"{doing} {self._objective} {how}")
        title.setObjectName("state")
        text = QLabel(_LANDMARK_TEXT if self.landmarks is not None else _MANUAL_TEXT)
        text.setWordWrap(True)
        self._where, self._residual, self._trouble = QLabel(), QLabel(), QLabel()
        self._trouble.setObjectName("warning")
        for label in (self._where, self._residual, self._trouble):
            label.setWordWrap(True)
        self._save = QPushButton("Check" if self._checking else "Save")
        self._save.clicked.connect(self.save)
        leave = QPushButton("Leave without saving")
        leave.clicked.connect(self.close)
        keys = LANDMARK_KEYS if self.landmarks is not None else MANUAL_KEYS

        side = QVBoxLayout()
        for widget in (title, text, self._where, self._residual, self._trouble, key_table(keys)):
            side.addWidget(widget)
            side.addSpacing(8)
        side.addStretch(1)
        side.addWidget(self._save)
        side.addWidget(leave)
        panel = QWidget()
        panel.setFixedWidth(330)
        panel.setLayout(side)
        row = QHBoxLayout()
        row.addWidget(self._view, 1)
        row.addWidget(panel)
        page = QVBoxLayout(self)
        page.setContentsMargins(8, 8, 8, 8)
        page.addWidget(notice())
        page.addLayout(row, 1)
        add_keys(self, self._keys())
        add_keys(self, self._held_keys(), repeat=True)

    def _keys(self) -> list[tuple[str, Callable[[], object]]]:
        keys: list[tuple[str, Callable[[], object]]] = [("S", self.save), ("Escape", self.close)]
        if self.landmarks is not None:
            keys += [("Return", self.set_landmark), ("Enter", self.set_landmark)]
            keys += [("N", partial(self.go_on, 1)), ("P", partial(self.go_on, -1))]
        if self.manual is not None:
            keys.append(("M", self.mirror))
        return keys

    def _held_keys(self) -> list[tuple[str, Callable[[], object]]]:
        """Return the keys that go on while they are held."""
        keys: list[tuple[str, Callable[[], object]]] = []
        for name, dx, dy in (("Left", -1, 0), ("Right", 1, 0), ("Up", 0, -1), ("Down", 0, 1)):
            keys.append((name, partial(self.move_by, dx, dy)))
            keys.append((f"Shift+{name}", partial(self.move_by, _FAR_PX * dx, _FAR_PX * dy)))
        if self.manual is not None:
            for name, factor, degrees in (("", 1.002, 0.1), ("Ctrl+", 1.02, 2.0)):
                # Where plus takes a shift, the key alone does too.
                for key in ("+", "=", "Shift++"):
                    keys.append((f"{name}{key}", partial(self.stretch, factor)))
                keys.append((f"{name}-", partial(self.stretch, 1 / factor)))
                keys.append((f"{name}]", partial(self.turn, degrees)))
                keys.append((f"{name}[", partial(self.turn, -degrees)))
        return keys

    # -- what the keys do ---------------------------------------------------------------------------------

    def move_by(self, dx: float, dy: float) -> None:
        """Move the cross or the target by display pixels."""
        if self.landmarks is not None:
            self.landmarks.move(dx, dy)
        if self.manual is not None:
            self.manual.shift(dx, dy)
        self._changed()

    def set_landmark(self) -> None:
        """The cross is on the landmark."""
        if self.landmarks is not None and self._there:
            self.landmarks.set()
            self._changed()

    def go_on(self, step: int) -> None:
        """Go to the next landmark, or to one before."""
        if self.landmarks is not None:
            self.landmarks.select((self.landmarks.index + step) % len(self.landmarks))
            self._changed()

    def stretch(self, factor: float) -> None:
        """Make the target larger by a factor."""
        if self.manual is not None:
            self.manual.stretch(factor)
            self._changed()

    def turn(self, degrees: float) -> None:
        """Turn the target."""
        if self.manual is not None:
            self.manual.turn(degrees)
            self._changed()

    def mirror(self) -> None:
        """Swap left and right."""
        if self.manual is not None:
            self.manual.mirrored = not self.manual.mirrored
            self._changed()

    def save(self) -> None:
        """Store the alignment (or judge the one that is checked) and close."""
        try:
            self.aligned = self._result()
        except LinceiError as error:
            self._refused = str(error)
            self._say()
            return
        self.close()

    def _result(self) -> Aligned:
        size = self._frame.size_px
        if self.landmarks is not None and self._checking and self._start is not None:
            if self.landmarks.done == 0:
                raise AlignmentError("no landmark was set", "check", "Set the cross on one or more.")
            return judged(self._start, self.landmarks.against(self._start), GOOD_BY_EYE_PX)
        if self.landmarks is not None:
            matrix, kind, residual = self.landmarks.fitted()
            alignment = self._new(matrix, kind, residual, size)
        else:
            assert self.manual is not None
            alignment = self._new(self.manual.matrix(), "similarity", None, size)
        return stored_as(alignment)

    def _new(self, matrix: Any, kind: str, residual: Any, size: tuple[int, int]) -> Alignment:
        return new_alignment(
            matrix,
            kind,
            residual,
            objective=self._objective,
            method=self._method,
            camera=self._camera,
            size_px=size,
            monitor=self._display.monitor,
        )

    # -- what is shown ------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._refused = ""
        self._show_in_eyepiece()
        self._say()

    def _tick(self) -> None:
        frame = self._frames.take()
        if frame is not None and frame.size_px == self._frame.size_px:
            self._frame, self._gray = frame, gray_of(frame)
            if self.landmarks is not None:
                self._there = self.landmarks.follow(self._gray)
        self._show_in_eyepiece()
        self._view.show_picture(self._drawn())
        self._say()

    def _show_in_eyepiece(self) -> None:
        picture = self.landmarks.picture() if self.landmarks is not None else None
        if self.manual is not None:
            picture = self.manual.picture()
        if picture is not None:
            self._display.show_picture(picture, lasts_s=_PICTURE_LASTS_S)

    def _say(self) -> None:
        trouble = self._display.trouble or self._frames.trouble
        if self.landmarks is not None:
            landmarks = self.landmarks
            done = f"{landmarks.done} of {len(landmarks)} set, four are needed"
            self._where.setText(f"Landmark {landmarks.index + 1}. {done}.")
            if not self._there:
                trouble = (
                    trouble or "The landmark is out of the view: bring the slide back, or choose another."
                )
            self._save.setEnabled(landmarks.done >= (1 if self._checking else 4))
            self._residual.setText(self._fits())
        if self.manual is not None:
            manual = self.manual
            dx, dy = manual.shift_px
            mirrored = ", mirrored" if manual.mirrored else ""
            self._where.setText(
                f"Shift {dx:+.0f}, {dy:+.0f} px; scale {manual.scale:.3f}; turned {manual.rotation_deg:+.1f} "
                f"degrees{mirrored}"
            )
        self._trouble.setText(self._refused or trouble)
        self._trouble.setVisible(bool(self._refused or trouble))

    def _fits(self) -> str:
        """Say how well what was set so far fits."""
        assert self.landmarks is not None
        if self._checking and self._start is not None and self.landmarks.done:
            residual = self.landmarks.against(self._start)
            return f"Off by {residual.rms_px:.1f} px (largest {residual.max_px:.1f})"
        if self.landmarks.done < 4:
            return ""
        try:
            _, kind, residual = self.landmarks.fitted()
        except AlignmentError as error:
            return str(error)
        return f"{kind.capitalize()}, {residual.sentence()}"

    def _drawn(self) -> RGB:
        """Return the camera's view with the landmarks or the target."""
        fits = self._view.fits_px
        picture = shrunken(self._frame, fits).copy()
        to_view = fit(self._frame.size_px, (picture.shape[1], picture.shape[0]))
        if self.manual is not None:
            lines = [mapped(to_view, line) for line in self.manual.target()]
            draw_lines(picture, lines, GREEN, 1)
        if self.landmarks is not None:
            cv2 = opencv()
            for number, (x, y) in enumerate(mapped(to_view, self.landmarks.landmarks_px)):
                present = number == self.landmarks.index
                radius = 16 if present else 9
                center = (round(16 * float(x)), round(16 * float(y)))
                color = GREEN if present else _AMBER
                cv2.circle(picture, center, 16 * radius, color, 2 if present else 1, cv2.LINE_AA, 4)
                place = (round(x) + radius + 4, round(y) - radius)
                cv2.putText(
                    picture, str(number + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 1, cv2.LINE_AA
                )
            self._add_enlarged(picture)
        return picture

    def _add_enlarged(self, picture: RGB) -> None:
        """Put the present landmark, enlarged, into the corner that is farthest from it."""
        assert self.landmarks is not None
        cv2 = opencv()
        x, y = self.landmarks.landmarks_px[self.landmarks.index]
        part = cv2.getRectSubPix(self._gray, (64, 64), (float(x), float(y)))
        side = min(picture.shape[0], picture.shape[1]) // 3
        large = cv2.resize(
            np.clip(255 * part, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
        )
        large = cv2.cvtColor(large, cv2.COLOR_GRAY2RGB)
        cv2.drawMarker(large, (side // 2, side // 2), GREEN, cv2.MARKER_CROSS, side // 8, 1, cv2.LINE_AA)
        cv2.rectangle(large, (0, 0), (side - 1, side - 1), GREEN, 1)
        width, height = self._frame.size_px
        rows = slice(0, side) if y > height / 2 else slice(picture.shape[0] - side, None)
        columns = slice(0, side) if x > width / 2 else slice(picture.shape[1] - side, None)
        picture[rows, columns] = large

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Let go of camera and display."""
        self._timer.stop()
        self._frames.close()
        self._display.blank("aligned")
        event.accept()


def show_align_window(
    camera: Camera,
    display: PictureDisplay,
    objective: str,
    method: str,
    *,
    start: Alignment | None = None,
    checking: bool = False,
) -> Aligned:
    """Open the window on the main screen and wait until the observer is done; parameters as of `AlignWindow`.

    Raises
    ------
    AlignmentError
        When the window was closed without saving, or the camera sees nothing to align with.
    """
    running = application()
    window = AlignWindow(camera, display, objective, method, start=start, checking=checking)
    primary = QGuiApplication.primaryScreen().availableGeometry()
    window.setGeometry(primary.adjusted(40, 60, -40, -40))
    window.setAttribute(Qt.WidgetAttribute.WA_QuitOnClose)
    window.show()
    window.activateWindow()
    running.exec()
    if window.aligned is None:
        raise AlignmentError("the window was closed, and nothing was stored", "alignment", "Align again.")
    return window.aligned


class _NewestFrame:
    """Reads a camera in a thread, so that the window never waits for it."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._condition = threading.Condition()
        self._newest: Frame | None = None
        self._closing = threading.Event()
        self.trouble = ""
        self._thread = threading.Thread(target=self._read, name="align camera", daemon=True)
        self._thread.start()

    def first(self) -> Frame:
        """Wait for a frame."""
        with self._condition:
            self._condition.wait_for(lambda: self._newest is not None or bool(self.trouble), _FIRST_FRAME_S)
            if self._newest is None:
                self._closing.set()
                reason = self.trouble or "no frame came"
                raise AlignmentError(
                    f"the camera gives no frames ({reason})", self._camera.name, "Check its cable."
                )
            return self._newest

    def take(self) -> Frame | None:
        """Return the newest frame that was not taken yet."""
        with self._condition:
            newest, self._newest = self._newest, None
        return newest

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._thread.join(5.0)

    def _read(self) -> None:
        while not self._closing.is_set():
            try:
                frame = self._camera.grab(1.0)
                trouble = ""
            except LinceiError as error:
                frame, trouble = None, str(error)
            with self._condition:
                self.trouble = trouble
                self._newest = frame if frame is not None else self._newest
                self._condition.notify_all()
            if frame is None:
                self._closing.wait(0.5)
