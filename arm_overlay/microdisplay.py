"""The microdisplay's own process: it draws what it is told to, and goes dark by itself.

``python -m arm_overlay.microdisplay`` reads messages (`arm_overlay.overlay_messages`) from its standard
input and reports on its standard output, a line of JSON each. `arm_overlay.displays.Microdisplay` starts it.
It shares nothing with the live loop but these pipes and the machine's clock, so that whatever happens to the
loop (an error, a stop signal, the end), a stale overlay leaves the eyepiece: see `LATE_S`.

====================  ====================================================================================
``ready``             its window covers the monitor
``waiting``           the monitor is not there (``reason``); the window is hidden until it comes back
``shown``             an overlay is lit: frame, time, until when
``picture``           a picture for the alignment is lit
``blank``             it is dark (``reason``), since ``time_s``
``error``             a message cannot be shown (``reason``)
====================  ====================================================================================
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from typing import Any, BinaryIO, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QImage, QPainter, QRasterWindow, QScreen

from arm_overlay.displays import Monitor, monitors_of, protect_constants
from arm_overlay.overlay import Overlay
from arm_overlay.overlay_messages import DisplayMessage, MessageError, decode, read_message
from arm_overlay.rendering import Renderer, Style
from lincei.errors import LinceiError

# An overlay is dark at the latest this long after the next frame was due.
LATE_S = 0.2
# Painting black and handing it to the screen is begun so much earlier.
BLANKING_S = 0.03
# Of a pulsing outline.
ANIMATION_INTERVAL_MS = 33
# When the pipe ends and the window does not close within this, the process ends without it.
END_LIMIT_S = 0.1


class _Inbox(QObject):
    """The newest message; a thread puts it in, the window takes it."""

    arrived = Signal()
    ended = Signal()

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.Lock()
        self._newest: bytes | None = None
        self.problem = ""

    def start(self) -> None:
        threading.Thread(target=self._read, name="messages", daemon=True).start()

    def take(self) -> bytes | None:
        with self._lock:
            newest, self._newest = self._newest, None
        return newest

    def _read(self) -> None:
        try:
            while (data := read_message(self._stream)) is not None:
                with self._lock:
                    waiting, self._newest = self._newest is not None, data
                if not waiting:
                    self.arrived.emit()
        except (MessageError, OSError, ValueError) as error:
            self.problem = str(error)
        self.ended.emit()
        time.sleep(END_LIMIT_S)
        os._exit(0)


class _Reports:
    """Lines of JSON to whoever started this process; nobody may be left to read them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, report: str, **details: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(json.dumps({"report": report, **details}) + "\n")
            self._stream.flush()


class _Window(QRasterWindow):
    """Covers the monitor; shows the display's pixels, or black."""

    def __init__(self, display: _Display) -> None:
        super().__init__()
        self._display = display
        self.setTitle("lincei microdisplay")
        # No window manager: it may neither move the window to another monitor nor put a panel over it.
        self.setFlags(
            Qt.WindowType.FramelessWindowHint
            | Qt.WindowType.WindowStaysOnTopHint
            | Qt.WindowType.WindowDoesNotAcceptFocus
            | Qt.WindowType.BypassWindowManagerHint
        )
        self.setCursor(Qt.CursorShape.BlankCursor)

    def paintEvent(self, event: Any) -> None:  # noqa: N802, ARG002 - Qt's name
        ratio = self.devicePixelRatio()
        pixels = self._display.pixels((round(self.width() * ratio), round(self.height() * ratio)))
        painter = QPainter(self)
        painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_Source)
        if pixels is None:
            painter.fillRect(0, 0, self.width(), self.height(), Qt.GlobalColor.black)
        else:
            height, width = pixels.shape[:2]
            image = QImage(pixels.data, width, height, pixels.strides[0], QImage.Format.Format_RGB888)
            image.setDevicePixelRatio(ratio)
            painter.drawImage(0, 0, image)
        painter.end()
        # The picture goes to the screen when this returns.
        if news := self._display.take_news():
            QTimer.singleShot(0, lambda: self._display.report(news))


class _Display(QObject):
    """What is lit, and until when; and the window's place."""

    def __init__(
        self,
        application: QGuiApplication,
        monitor: Monitor,
        *,
        own_allowed: bool,
        notice_s: float,
        inbox: _Inbox,
        report: _Reports,
    ) -> None:
        super().__init__()
        self._application, self._monitor, self._own_allowed = application, monitor, own_allowed
        self._inbox, self._report = inbox, report
        self._renderer: Renderer | None = None
        self._message: DisplayMessage | None = None
        self._until_s: float | None = None
        self._draw_ms = 0.0
        # What is to be reported once it is on the screen.
        self._news: dict[str, Any] | None = None
        self._notice, self._notice_s = notice_s > 0, notice_s
        self._was_lit = self._was_hidden = False
        self._waiting_for: str | None = None
        self._screen: QScreen | None = None

        self._window = _Window(self)
        self._stale = self._timer(self._went_stale)
        self._pulse = self._timer(self._window.update, single=False)
        inbox.arrived.connect(self._arrived)
        inbox.ended.connect(self._ended)
        application.screenAdded.connect(self._watch_screen)
        application.screenRemoved.connect(self._screen_gone)
        application.primaryScreenChanged.connect(self._place)
        for screen in application.screens():
            screen.geometryChanged.connect(self._place)
        self._place()

    def _timer(self, call: Any, *, single: bool = True) -> QTimer:
        timer = QTimer(self)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setSingleShot(single)
        timer.timeout.connect(call)
        return timer

    # -- the monitor --------------------------------------------------------------------------------------

    def _watch_screen(self, screen: QScreen) -> None:
        screen.geometryChanged.connect(self._place)
        self._place()

    def _screen_gone(self, screen: QScreen) -> None:
        """Hide before Qt moves the window to the operator's screen."""
        if self._screen is not None and screen is self._screen:
            self._hide()
        # What is left is known once Qt has finished.
        QTimer.singleShot(0, self._place)

    def _hide(self) -> None:
        self._screen = None
        self._dark("the monitor is not there")
        self._window.hide()
        self._window.destroy()

    def _place(self, *_: Any) -> None:
        """Cover the monitor, or hide while it is not there or has become the operator's own."""
        monitors = monitors_of(self._application)
        found = [monitor for monitor in monitors if self._monitor.is_same(monitor)]
        # Two that tell the same of themselves differ by their connector.
        found.sort(key=lambda monitor: monitor.name != self._monitor.name)
        reason = ""
        if not found:
            reason = f"the monitor {self._monitor.name} is not there: plug it in and switch it on"
        elif found[0].own and not self._own_allowed:
            reason = (
                f"the monitor {found[0].name} has become the operator's own screen, or mirrors it: "
                "make another one the primary monitor and extend the desktop"
            )
        if reason:
            self._hide()
            if reason != self._waiting_for:
                self._waiting_for = reason
                self._report("waiting", reason=reason)
            return
        screen = next(known for known in self._application.screens() if known.name() == found[0].name)
        placed = self._window.isVisible() and self._window.screen() is screen
        if not placed or self._window.geometry() != screen.geometry():
            self._screen = screen
            self._window.setScreen(screen)
            self._window.setGeometry(screen.geometry())
            # Not showFullScreen, which asks for the keyboard too.
            self._window.setWindowStates(Qt.WindowState.WindowFullScreen)
            self._window.setVisible(True)
            self._window.setGeometry(screen.geometry())
            self._window.update()
        if self._waiting_for != "":
            if self._notice:
                # Its time counts from when it can be seen.
                QTimer.singleShot(round(1000 * self._notice_s), self._end_notice)
            self._waiting_for = ""
            self._report("ready", monitor=dataclasses.asdict(found[0]))

    # -- messages -----------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        data = self._inbox.take()
        if data is None:
            return
        try:
            message = decode(data)
        except LinceiError as error:
            self._fail(str(error))
            return
        now_s = time.monotonic()
        self._was_hidden = bool(message.hidden)
        if message.blank_reason:
            self._dark(message.blank_reason)
            return
        if message.picture is not None:
            until_s = message.picture_until_s
            news: dict[str, Any] = {"report": "picture", "until_s": until_s}
        else:
            assert message.overlay is not None  # or it would be blank
            # A frame from the future, by a wrong clock, must not stay longer than one of now.
            until_s = min(message.overlay.frame_time_s, now_s) + message.frame_interval_s + LATE_S
            news = {
                "report": "shown",
                "frame_number": message.overlay.frame_number,
                "frame_time_s": message.overlay.frame_time_s,
                "until_s": until_s,
            }
        if now_s >= until_s - BLANKING_S:
            self._dark("stale", late_s=now_s - until_s + LATE_S)
            return
        if self._screen is None:
            self._dark("the monitor is not there")
            return
        self._message, self._until_s, self._news, self._was_lit = message, until_s, news, True
        self._stale.start(max(0, int(1000 * (until_s - BLANKING_S - now_s))))
        if message.overlay is not None and message.overlay.mode == "animation":
            self._pulse.start(ANIMATION_INTERVAL_MS)
        else:
            self._pulse.stop()
        self._window.update()

    def _went_stale(self) -> None:
        """Go dark: the next frame is late, whatever the reason."""
        if self._until_s is not None:
            self._dark("stale", due_s=self._until_s - LATE_S)

    def _dark(self, reason: str, **details: Any) -> None:
        self._message = self._until_s = None
        self._stale.stop()
        self._pulse.stop()
        self._news = {"report": "blank", "reason": reason, **details}
        if self._screen is None:
            # There is no picture to wait for.
            if news := self.take_news():
                self.report(news)
        else:
            self._window.update()

    def _fail(self, reason: str) -> None:
        self._report("error", reason=reason)
        self._dark("error")

    def _ended(self) -> None:
        """Go dark and end: nobody is left who says what to show."""
        if self._inbox.problem:
            self._report("error", reason=self._inbox.problem)
        self._window.hide()
        self._window.destroy()
        self._application.quit()

    def _end_notice(self) -> None:
        self._notice = False
        self._window.update()

    # -- the picture --------------------------------------------------------------------------------------

    def pixels(self, size_px: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return what is to be seen now, shape (Y, X, 3), or None for black."""
        began_s = time.monotonic()
        try:
            drawn = self._drawn(size_px, began_s)
        except Exception as error:  # whatever a message does to the drawing, nothing stale may stay
            self._fail(f"the overlay cannot be drawn: {error}")
            return None
        now_s = time.monotonic()
        self._draw_ms = 1000 * (now_s - began_s)
        if self._until_s is not None and now_s >= self._until_s:
            self._dark("stale", due_s=self._until_s - LATE_S)
            return None
        return drawn

    def _drawn(self, size_px: tuple[int, int], now_s: float) -> NDArray[np.uint8] | None:
        if self._renderer is None or self._renderer.size_px != size_px:
            self._renderer = Renderer(size_px)
        message = self._message
        if message is None:
            if self._notice and not self._was_lit and not self._was_hidden:
                return self._renderer.draw(Overlay(0, 0.0, size_px), None, Style(research_note=True))
            return None
        if message.picture is not None:
            return _placed(message.picture, size_px)
        assert message.overlay is not None
        style = dataclasses.replace(message.style, research_note=self._notice or message.style.research_note)
        return self._renderer.draw(message.overlay, message.warp, style, time_s=now_s)

    def take_news(self) -> dict[str, Any] | None:
        """Return what is to be reported of the picture that was just drawn, once."""
        news, self._news = self._news, None
        if news is not None and news["report"] == "shown":
            news["draw_ms"] = round(self._draw_ms, 3)
        return news

    def report(self, news: dict[str, Any]) -> None:
        """Report what has come to the screen now."""
        self._report(**news, time_s=time.monotonic())


def _placed(picture: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture in red, green and blue, cut or filled with black to the size of the display."""
    width, height = size_px
    placed = np.zeros((height, width, 3), np.uint8)
    part = picture[:height, :width]
    placed[: part.shape[0], : part.shape[1]] = part[..., None] if part.ndim == 2 else part
    return placed


def main() -> None:
    """Run the display until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m arm_overlay.microdisplay", description=__doc__)
    parser.add_argument("--monitor", required=True, help="which one, as arm_overlay.displays prints it")
    parser.add_argument("--own-screen-allowed", action="store_true", help="also the operator's own screen")
    parser.add_argument("--notice-s", type=float, default=5.0, help='how long "Research use only" is shown')
    arguments = parser.parse_args()
    # Standard output is for reports alone; what libraries print goes where complaints go.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C is for the program that started this one; its end is the end of the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The processors are for the network.
    cv2.setNumThreads(1)
    protect_constants()
    application = QGuiApplication(sys.argv[:1])
    application.setQuitOnLastWindowClosed(False)
    inbox = _Inbox(sys.stdin.buffer)
    display = _Display(
        application,
        Monitor.from_json(json.loads(arguments.monitor)),
        own_allowed=arguments.own_screen_allowed,
        notice_s=arguments.notice_s,
        inbox=inbox,
        report=_Reports(reports),
    )
    inbox.start()
    application.exec()
    del display
    # The thread that reads may wait in the pipe: nothing else is left to be tidied up.
    os._exit(0)


if __name__ == "__main__":
    main()
