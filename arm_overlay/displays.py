"""Monitors, the choice of one for the eyepiece, and the microdisplay's process as the live loop sees it.

``python -m arm_overlay.displays`` prints the monitors as JSON: a process of its own asks for them, so that
nobody else needs a Qt application.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lincei.errors import LinceiError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from arm_overlay.overlay import Overlay, Shown
    from arm_overlay.overlay_messages import DisplayMessage
    from arm_overlay.rendering import Style

NO_DISPLAY = "none"
_ORDINALS = ("first", "second", "third", "fourth")
_RESOLUTION = re.compile(r"(\d+)\s*[xX]\s*(\d+)")
_LISTING_LIMIT_S = 60.0

# A process that ended is started again this long after it was started; one that never got ready, later, since
# the next one will hardly do better at once.
_RESTART_AFTER_S, _RETRY_AFTER_S = 0.5, 1.5
# Starting takes half a second, but many on a busy machine, where starting anew would only take longer.
_START_LIMIT_S = 60.0
# A message is answered within milliseconds; a process that takes this long hangs. Where one process after
# another does, the machine is slow: each next one has twice as long, up to the larger.
_ANSWER_LIMIT_S, _LONGEST_ANSWER_LIMIT_S = 1.0, 16.0
# The process takes a stale overlay away itself. One that has not said so this long before the time hangs, and
# is ended, which takes its window away.
_HUNG_BEFORE_S = 0.02
# Who wakes late was held up too (stopped, or by a busy machine): what the process said may lie in the pipe,
# and has this long to be read.
_READ_LIMIT_S = 0.25
# A process that is no longer wanted has this long to end by itself.
_CLOSE_LIMIT_S = 0.5


@dataclass(frozen=True)
class Monitor:
    """A monitor that is connected and switched on.

    Parameters
    ----------
    name : str
        The connector's, such as "HDMI-1".
    maker, model, serial : str
        As the monitor tells them (EDID); empty where it does not.
    size_px, position_px : tuple of int
        Width and height; x and y of its upper left corner on the desktop.
    refresh_hz : float
        Pictures a second.
    primary : bool
        Whether it is the desktop's primary monitor, on which the operator works.
    mirrors_primary : bool
        Whether it shows a part of the desktop that the primary monitor shows too.
    """

    name: str
    maker: str
    model: str
    serial: str
    size_px: tuple[int, int]
    position_px: tuple[int, int]
    refresh_hz: float
    primary: bool
    mirrors_primary: bool = False

    @property
    def own(self) -> bool:
        """Whether what it shows is on the operator's own screen."""
        return self.primary or self.mirrors_primary

    @property
    def text(self) -> str:
        """Say which it is, in one line."""
        made = " ".join(part for part in (self.maker, self.model) if part)
        role = (
            ", the operator's own"
            if self.primary
            else ", mirrors the operator's"
            if self.mirrors_primary
            else ""
        )
        (width, height), (x, y) = self.size_px, self.position_px
        return f"{self.name}{f' ({made})' if made else ''}, {width}x{height} at {x},{y}{role}"

    def is_same(self, other: Monitor) -> bool:
        """Tell whether another is this very monitor, though perhaps at another connector or resolution.

        Judged by what it tells of itself where it tells anything, else by its connector.
        """
        identity = (self.maker, self.model, self.serial)
        if any(identity):
            return identity == (other.maker, other.model, other.serial) and (
                bool(self.serial) or self.name == other.name
            )
        return self.name == other.name and not any((other.maker, other.model, other.serial))

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Monitor:
        """Return the monitor that `dataclasses.asdict` and JSON made this of."""
        pairs = {name: (int(known[name][0]), int(known[name][1])) for name in ("size_px", "position_px")}
        return cls(**{**known, **pairs})


def list_monitors() -> list[Monitor]:
    """Return the monitors there are: the primary one first, the others from left to right.

    Raises
    ------
    LinceiError
        When Qt is missing, or no desktop can be reached.
    """
    need_qt()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "arm_overlay.displays"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            timeout=_LISTING_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise LinceiError(
            "the desktop does not answer when asked for its monitors", "", "Log in again."
        ) from error
    if done.returncode != 0:
        reason = _last_line(done.stderr.splitlines())
        raise LinceiError(
            f"the monitors cannot be listed ({reason})" if reason else "the monitors cannot be listed",
            "",
            "Start lincei from the desktop that they belong to; from elsewhere, set DISPLAY (such as :0).",
        )
    return [Monitor.from_json(known) for known in json.loads(done.stdout)]


def choose_monitor(spec: str, monitors: Sequence[Monitor]) -> Monitor | None:
    """Return the monitor that a specification names; None for "none".

    The operator's own screen is never chosen by mistake: only with an exclamation mark after the
    specification, as in "HDMI-1!".

    Parameters
    ----------
    spec : str
        Its name ("HDMI-1"), what the monitor tells of itself (model, maker and model, or serial number), its
        resolution ("1920x1080"), or "second", "third", "fourth" (the operator's own is the first); upper and
        lower case alike.
    monitors : sequence of Monitor
        Those there are, as `list_monitors` returns them.

    Raises
    ------
    UsageError
        When there is no such monitor, more than one, or only the operator's own. It lists those there are.
    """
    wanted, own_allowed = _split(spec)
    if wanted == NO_DISPLAY:
        return None
    there = (
        f"There are: {'; '.join(monitor.text for monitor in monitors)}." if monitors else "There are none."
    )
    found = _named(wanted, monitors)
    if not found:
        raise UsageError(
            f"there is no monitor {spec!r}", "--display", f"{there} `lincei arm displays` lists them too."
        )
    allowed = [monitor for monitor in found if own_allowed or not monitor.own]
    if not allowed:
        mirrored = not any(monitor.primary for monitor in found)
        why = "shows the same as the operator's own screen" if mirrored else "is the operator's own screen"
        advice = "Extend the desktop instead of mirroring it. " if mirrored else ""
        raise UsageError(
            f"the monitor {found[0].name} {why}, which the overlay would cover",
            "--display",
            f"{advice}{there} If you mean it, write {spec}! with an exclamation mark.",
        )
    if len(allowed) > 1:
        raise UsageError(
            f"{len(allowed)} monitors are {spec!r}",
            "--display",
            f"Name one by its connector: {', '.join(monitor.name for monitor in allowed)}. {there}",
        )
    return allowed[0]


def _split(spec: str) -> tuple[str, bool]:
    """Return a specification in lower case without its mark, and whether it had one."""
    bare = spec.strip()
    return bare.removesuffix("!").strip().casefold(), bare.endswith("!")


def _named(wanted: str, monitors: Sequence[Monitor]) -> list[Monitor]:
    """Return the monitors that a specification fits: by name first, since a name is one monitor's own."""
    by_name = [monitor for monitor in monitors if monitor.name.casefold() == wanted]
    if by_name:
        return by_name
    if wanted in _ORDINALS:
        return list(monitors[_ORDINALS.index(wanted) :][:1])
    if resolution := _RESOLUTION.fullmatch(wanted):
        size = (int(resolution[1]), int(resolution[2]))
        return [monitor for monitor in monitors if monitor.size_px == size]
    return [
        monitor
        for monitor in monitors
        if wanted
        and wanted
        in {
            told.casefold()
            for told in (monitor.model, monitor.serial, f"{monitor.maker} {monitor.model}".strip())
            if told
        }
    ]


def need_qt() -> None:
    """Raise a sentence when Qt is not installed."""
    if importlib.util.find_spec("PySide6") is None:
        raise LinceiError(
            "the microdisplay needs Qt, which is not installed",
            "",
            "Install it with: pip install 'lincei[arm]'",
        )


def protect_constants() -> None:
    """Keep PySide6 6.12.0 from ending a process on Python 3.11; to be called before Qt is used.

    Its methods return None, True and False as if these were not counted, which is so from Python 3.12 on.
    Before, each call takes one reference away that it was not given: after some ten thousand calls, less than
    a minute of live view, Python ends with "deallocating None". Here they are given more than any session
    takes.
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False, NotImplemented):
            if sys.getrefcount(constant) < 1 << 40:
                # The count is the first thing in an object.
                ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 48


def child_environment() -> dict[str, str]:
    """Return the environment of a process that counts in the display's own pixels, not in enlarged ones."""
    environment = {name: value for name, value in os.environ.items() if name != "QT_SCALE_FACTOR"}
    return {**environment, "QT_ENABLE_HIGHDPI_SCALING": "0"}


def monitors_of(application: Any) -> list[Monitor]:
    """Return the monitors that a ``QGuiApplication`` knows, in the order of `list_monitors`."""
    primary = application.primaryScreen()
    found = []
    for screen in application.screens():
        place, ratio = screen.geometry(), screen.devicePixelRatio()
        is_primary = screen is primary or (primary is not None and screen.name() == primary.name())
        found.append(
            Monitor(
                name=screen.name(),
                maker=screen.manufacturer(),
                model=screen.model(),
                serial=screen.serialNumber(),
                size_px=(round(place.width() * ratio), round(place.height() * ratio)),
                position_px=(place.x(), place.y()),
                refresh_hz=round(screen.refreshRate(), 2),
                primary=is_primary,
                mirrors_primary=not is_primary
                and primary is not None
                and place.intersects(primary.geometry()),
            )
        )
    return sorted(found, key=lambda monitor: (not monitor.primary, *monitor.position_px, monitor.name))


class Microdisplay:
    """The microdisplay, shown by a process of its own, which is started again when it ends.

    Overlays come out of a slot of one: a newer one replaces one that was not sent yet. All methods may be
    called from any thread; they return at once, except `close`.

    Parameters
    ----------
    spec : str
        Which monitor, see `choose_monitor`; not "none".
    style : Style, optional
        Color, line width and field of view; brightness and note are set elsewhere.
    notice_s : float
        How long "Research use only" is shown at the start.

    Raises
    ------
    UsageError
        When there is no such monitor.
    LinceiError
        When Qt is missing, or no desktop can be reached.
    """

    def __init__(self, spec: str, *, style: Style | None = None, notice_s: float = 5.0) -> None:
        from arm_overlay.rendering import Style

        chosen = choose_monitor(spec, list_monitors())
        if chosen is None:
            raise UsageError(f"{spec!r} is no monitor", "--display", "Name one.")
        self.monitor = chosen
        self._own_allowed = _split(spec)[1]
        self._style = style or Style()
        self._notice_s = notice_s
        # Guards all below, and wakes both threads.
        self._changed = threading.Condition()
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: bytes | None = None
        self._last_sent = b""
        self._writing = False
        self._shown: deque[tuple[int, float, float, float]] = deque(maxlen=256)
        self._last_shown: tuple[int, float, float, float] | None = None
        self._last_picture_s: float | None = None
        self._trouble = "the microdisplay is being started"
        self._process_error = ""
        self._ready = False
        self._lit_until_s: float | None = None
        self._unanswered_since_s: float | None = None
        self._answer_limit_s = _ANSWER_LIMIT_S
        self._starts = 0
        self._threads = [
            threading.Thread(target=self._supervise, name="microdisplay", daemon=True),
            threading.Thread(target=self._send, name="microdisplay sender", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def name(self) -> str:
        """Name of the monitor."""
        return self.monitor.name

    @property
    def trouble(self) -> str:
        """What is wrong with it, in words; empty while all is well."""
        with self._changed:
            return self._trouble or self._process_error

    @property
    def starts(self) -> int:
        """How often its process was started."""
        with self._changed:
            return self._starts

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""
        with self._changed:
            return self._process.pid if self._process is not None else None

    @property
    def last_shown(self) -> Shown | None:
        """The last overlay that was lit; None before the first."""
        from arm_overlay.overlay import Shown

        with self._changed:
            return None if self._last_shown is None else Shown(*self._last_shown)

    @property
    def last_picture_s(self) -> float | None:
        """When a picture of `show_picture` was lit last, on the clock of `time.monotonic`."""
        with self._changed:
            return self._last_picture_s

    def show(
        self,
        overlay: Overlay,
        warp: NDArray[Any] | None,
        *,
        frame_interval_s: float,
        brightness: float = 1.0,
    ) -> None:
        """Show an overlay until the next, or until 200 ms after the next was due.

        Parameters
        ----------
        overlay : Overlay
            A blank one gives black.
        warp : ndarray or None
            Shape (3, 3), from pixels of the frame to pixels of the display. None: not aligned, nothing is
            shown.
        frame_interval_s : float
            The next frame is due this long after the overlay's.
        brightness : float
            0 (nothing) to 1.

        Raises
        ------
        LinceiError
            When it cannot be shown.
        """
        from arm_overlay.overlay_messages import LONGEST_INTERVAL_S, DisplayMessage

        lit = brightness > 0
        self._put(
            DisplayMessage(
                overlay=_needed(overlay),
                warp=warp,
                style=dataclasses.replace(self._style, brightness=min(brightness, 1.0) if lit else 1.0),
                frame_interval_s=min(max(frame_interval_s, 1e-3), LONGEST_INTERVAL_S),
                hidden="" if lit else "brightness 0",
            )
        )

    def show_picture(self, picture: NDArray[Any], *, lasts_s: float) -> None:
        """Show a picture as it is, to align camera and display; show it again to keep it.

        Parameters
        ----------
        picture : ndarray of uint8
            Shape (Y, X) or (Y, X, 3), in pixels of the display (`Monitor.size_px`), drawn from its upper left
            corner.
        lasts_s : float
            When it is taken away, from now.

        Raises
        ------
        LinceiError
            When it is no such picture.
        """
        from arm_overlay.overlay_messages import DisplayMessage

        if picture.dtype != "uint8" or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            raise LinceiError(
                f"a picture of shape {picture.shape} and type {picture.dtype} cannot be shown", self.name
            )
        self._put(DisplayMessage(picture=picture, picture_until_s=time.monotonic() + lasts_s))

    def blank(self, reason: str) -> None:
        """Go dark at once, until the next overlay."""
        from arm_overlay.overlay_messages import DisplayMessage

        self._put(DisplayMessage(hidden=reason or "blank"))

    def reports(self) -> list[Shown]:
        """Return what was shown since this was asked last, the oldest first."""
        from arm_overlay.overlay import Shown

        with self._changed:
            shown = [Shown(*known) for known in self._shown]
            self._shown.clear()
        return shown

    def close(self) -> None:
        """End the process, which makes the display dark; closing twice does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, message: DisplayMessage) -> None:
        """Encode at once, since the caller may use its arrays again; leave the sending to the thread."""
        from arm_overlay.overlay_messages import encode

        data = encode(message)
        with self._changed:
            self._outbox = data
            self._changed.notify_all()

    def _send(self) -> None:
        """Send the newest message, again and again."""
        while True:
            with self._changed:
                while not self._closing and (self._outbox is None or not self._ready):
                    self._changed.wait()
                if self._closing:
                    return
                process, data = self._process, self._outbox
                self._outbox = None
                if process is None or data is None or process.stdin is None:
                    continue
                self._last_sent, self._writing = data, True
                if self._unanswered_since_s is None:
                    self._unanswered_since_s = time.monotonic()
                    self._changed.notify_all()
            with contextlib.suppress(OSError, ValueError):
                # To a process that hangs this waits until the other thread ends it.
                process.stdin.write(data)
                process.stdin.flush()
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _supervise(self) -> None:
        """Keep a process running, and end one that hangs."""
        while not self._closing:
            started_s, again_s = time.monotonic(), _RETRY_AFTER_S
            try:
                process = self._start()
            except OSError as error:
                self._set_trouble(f"the microdisplay cannot be started: {error}")
            else:
                if self._watch(process, started_s):
                    again_s = _RESTART_AFTER_S
            with self._changed:
                while not self._closing and (left_s := started_s + again_s - time.monotonic()) > 0:
                    self._changed.wait(left_s)

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process and the threads that read what it says."""
        command = [sys.executable, "-P", "-m", "arm_overlay.microdisplay"]
        command += ["--monitor", json.dumps(dataclasses.asdict(self.monitor))]
        command += ["--notice-s", str(self._notice_s)]
        if self._own_allowed:
            command += ["--own-screen-allowed"]
        # A stop signal from the terminal goes to a whole group of processes: the display must not be stopped
        # too, but go dark.
        apart: dict[str, Any] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            **apart,
        )
        with self._changed:
            self._process = process
            self._starts += 1
            self._ready = False
            self._lit_until_s = self._unanswered_since_s = None
            # What the last process was to show; it takes it away itself when it is too old.
            if self._outbox is None and self._last_sent:
                self._outbox = self._last_sent
        return process

    def _watch(self, process: subprocess.Popen[bytes], started_s: float) -> bool:
        """Wait for a process to end, or end it when it hangs or is not wanted; tell if it was ready."""
        said: deque[str] = deque(maxlen=50)
        readers = [
            threading.Thread(target=self._read_reports, args=(process,), daemon=True),
            threading.Thread(target=_read_lines, args=(process, said), daemon=True),
        ]
        for reader in readers:
            reader.start()
        hung = False
        with self._changed:
            while not self._closing and self._process is process:
                limit_s = self._hung_from_s(started_s)
                if limit_s is None:
                    self._changed.wait()
                elif (left_s := limit_s - time.monotonic()) > 0:
                    self._changed.wait(left_s)
                else:
                    # What it said may be on its way through the other thread.
                    punctual = -left_s < _HUNG_BEFORE_S
                    # Messages for it wake this thread too; they say nothing of the process.
                    hung = not self._changed.wait_for(
                        functools.partial(self._has_news, process, started_s, limit_s),
                        _HUNG_BEFORE_S if punctual else _READ_LIMIT_S,
                    )
                    if hung:
                        self._answer_limit_s = min(2 * self._answer_limit_s, _LONGEST_ANSWER_LIMIT_S)
                        break
            asked, was_ready = self._closing, self._ready
            self._ready = False
            # A pipe cannot be closed while a hanging process keeps the sender waiting in it.
            can_be_told = (
                self._changed.wait_for(lambda: not self._writing, _CLOSE_LIMIT_S) if asked else False
            )
        if can_be_told:
            # The end of its input makes it dark and ends it.
            with contextlib.suppress(OSError, ValueError):
                if process.stdin is not None:
                    process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_CLOSE_LIMIT_S)
        if process.poll() is None:
            process.kill()
        process.wait()
        for reader in readers:
            reader.join(1.0)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()
        reason = "it did not answer" if hung else _last_line(said) or f"exit status {process.returncode}"
        with self._changed:
            self._process = None
            self._process_error = ""
            if not asked:
                self._trouble = f"the microdisplay's process ended ({reason}) and is started again"
        return was_ready

    def _hung_from_s(self, started_s: float) -> float | None:
        """Return when the process counts as hanging; None when nothing is expected of it."""
        if not self._ready:
            return started_s + _START_LIMIT_S
        limits = []
        if self._lit_until_s is not None:
            limits.append(self._lit_until_s - _HUNG_BEFORE_S)
        if self._unanswered_since_s is not None:
            limits.append(self._unanswered_since_s + self._answer_limit_s)
        return min(limits, default=None)

    def _has_news(self, process: subprocess.Popen[bytes], started_s: float, limit_s: float) -> bool:
        """Tell whether anything came after which a process does not count as hanging from then."""
        return self._closing or self._process is not process or self._hung_from_s(started_s) != limit_s

    def _read_reports(self, process: subprocess.Popen[bytes]) -> None:
        """Take note of what the process reports, until it ends."""
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in process.stdout:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._hear(json.loads(line))
        with self._changed:
            if self._process is process:
                self._process = None
            self._changed.notify_all()

    def _hear(self, report: dict[str, Any]) -> None:
        """Take note of one report."""
        kind = report["report"]
        with self._changed:
            if kind == "ready":
                self._ready, self._trouble = True, ""
            elif kind == "waiting":
                self._ready, self._trouble = True, str(report["reason"])
            elif kind == "error":
                self._process_error = str(report["reason"])
            elif kind == "shown":
                known = (report["frame_number"], report["frame_time_s"], report["time_s"], report["draw_ms"])
                self._lit_until_s, self._last_shown = report["until_s"], known
                self._shown.append(known)
                self._unanswered_since_s, self._process_error = None, ""
            elif kind in ("blank", "picture"):
                if kind == "picture":
                    self._last_picture_s = report["time_s"]
                self._lit_until_s = report.get("until_s")
                self._unanswered_since_s = None
            if kind in ("shown", "picture"):
                self._answer_limit_s = _ANSWER_LIMIT_S
            self._changed.notify_all()

    def _set_trouble(self, trouble: str) -> None:
        with self._changed:
            self._trouble = trouble


def _needed(overlay: Overlay) -> Overlay:
    """Return an overlay without what its mode does not show, which would only be sent."""
    if overlay.mode in ("outline", "animation"):
        return dataclasses.replace(overlay, heat_map=None)
    lean = dataclasses.replace(overlay, regions=(), points=None)
    return lean if overlay.mode == "heatmap" else dataclasses.replace(lean, heat_map=None)


def _read_lines(process: subprocess.Popen[bytes], lines: deque[str]) -> None:
    """Keep the last lines that a process complained with."""
    assert process.stderr is not None
    with contextlib.suppress(OSError, ValueError):
        for line in process.stderr:
            lines.append(line.decode(errors="replace"))


def _last_line(lines: Sequence[str] | deque[str]) -> str:
    """Return the last line that says something, without its period."""
    return next((line.strip().rstrip(".") for line in reversed(lines) if line.strip()), "")


def _print_monitors() -> None:
    """Print the monitors as JSON."""
    from PySide6.QtGui import QGuiApplication

    application = QGuiApplication(sys.argv[:1])
    print(json.dumps([dataclasses.asdict(monitor) for monitor in monitors_of(application)]))


if __name__ == "__main__":
    _print_monitors()
