"""What cameras with a library of their own share: waiting, closing from another thread, a camera's clock."""

from __future__ import annotations

import abc
import atexit
import collections
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

from arm_overlay.cameras import Camera, CameraError, CameraInfo
from arm_overlay.frames import Frame
from arm_overlay.tumor_model import objective_of
from lincei.errors import LinceiError

# `close` waits no longer than this for a `grab` under way.
WAIT_S = 0.05
# So long a thread is waited for at closing; one that hangs in its library ends by itself later.
JOIN_S = 1.0


class PolledCamera(Camera):
    """A camera whose library is asked for a frame in short waits, so that `close` never has to wait long.

    Parameters
    ----------
    spec : str
        What follows the kind and the colon.
    """

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self._device_lock = threading.Lock()
        self._open = False
        self._connected = False

    @abc.abstractmethod
    def _connect(self) -> None:
        """Connect and start to take frames; what a failure leaves behind, `_disconnect` lets go."""

    @abc.abstractmethod
    def _newest(self, wait_s: float) -> Frame | None:
        """Return the newest frame if one is newer than the last, after waiting ``wait_s`` at most."""

    @abc.abstractmethod
    def _disconnect(self) -> None:
        """Let go of all that `_connect` took; raises nothing, also when the camera is gone."""

    def open(self) -> None:
        """Connect and start to take frames; does nothing where it is open.

        Raises
        ------
        CameraError
            When it cannot be opened; the sentence lists the cameras there are.
        """
        with self._device_lock:
            if self._open:
                return
            try:
                self._connect()
            except BaseException:
                self._disconnect()
                raise
            self._open = self._connected = True
            _open_cameras.add(self)

    def grab(self, timeout_s: float = 1.0) -> Frame:
        """Wait for the next frame and return the newest there is; older ones are dropped.

        Raises
        ------
        CameraError
            When it was unplugged or closed, has ended, or no frame came within ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self._device_lock:
                if not self._open:
                    raise CameraError("the camera is closed", self.name, "Open it again.")
                frame = self._newest(min(WAIT_S, max(0.0, deadline_s - time.monotonic())))
            if frame is not None:
                return frame
            if time.monotonic() >= deadline_s:
                raise CameraError(
                    f"no frame came within {timeout_s:g} s",
                    self.name,
                    "Check its cable and its power, that it does not wait for a trigger, and that no other "
                    "program uses it.",
                )

    def close(self) -> None:
        """Stop and let go of the camera; closing twice does nothing."""
        self._open = False  # first, so that a waiting `grab` lets go of the lock for good
        with self._device_lock:
            if self._connected:
                self._connected = False
                _open_cameras.discard(self)
                self._disconnect()


_open_cameras: weakref.WeakSet[PolledCamera] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what the program left open; a library that calls into Python at its end aborts it."""
    for camera in list(_open_cameras):
        camera.close()


class NewestFrames:
    """A thread that reads a device without a pause and keeps the newest frame alone.

    For libraries that queue frames: a queue that nobody empties hands out old ones.

    Parameters
    ----------
    read : callable
        Waits for a frame and returns it, or None when none came yet; raises `LinceiError` when there will be
        no more.
    release : callable, optional
        Lets go of the device; called by the thread, last, so that it never happens under a read.
    """

    def __init__(self, read: Callable[[], Frame | None], release: Callable[[], None] = lambda: None) -> None:
        self._read, self._release = read, release
        self._news = threading.Condition()
        self._frame: Frame | None = None
        self._error: LinceiError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> threading.Event:
        """Set when the thread is to end; a read that waits for long watches it."""
        return self._stopped

    def take(self, wait_s: float) -> Frame | None:
        """Return the frame that came since the last call, or None after ``wait_s``.

        Raises
        ------
        LinceiError
            What ended the reading, after the last frame.
        """
        with self._news:
            if self._frame is None and self._error is None:
                self._news.wait(wait_s)
            frame, self._frame = self._frame, None
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def stop(self) -> None:
        """End the thread, which lets go of the device."""
        self._stopped.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                frame = self._read()
                if frame is not None:
                    with self._news:
                        self._frame = frame
                        self._news.notify()
        except Exception as error:
            # Camera libraries raise errors of many kinds; none may end the thread without a word.
            with self._news:
                self._error = (
                    error if isinstance(error, LinceiError) else CameraError(f"the camera failed: {error}")
                )
                self._news.notify()
        finally:
            self._release()


class DeviceClock:
    """Brings a camera's own time stamps onto the clock of `time.monotonic`.

    A frame arrives later than it was stamped by a delay that is never less than that of an undisturbed
    transfer. The least difference between arrival and stamp over the last frames is that of an undisturbed
    frame; all stamps are moved by it. What a busy computer adds to the way of one frame so drops out.

    Parameters
    ----------
    frames : int
        Over how many frames the least difference is taken; so few that the drift of the clocks does not
        matter.

    Examples
    --------
    >>> clock = DeviceClock()
    >>> clock.time_s(5.00, arrival_s=100.00)
    100.0
    >>> clock.time_s(5.02, arrival_s=100.05)  # it came 30 ms late
    100.02
    """

    def __init__(self, frames: int = 200) -> None:
        self._differences: collections.deque[float] = collections.deque(maxlen=frames)
        self._last: tuple[float, float] | None = None

    def time_s(self, stamp_s: float | None, arrival_s: float) -> float:
        """Return when a frame was taken.

        Parameters
        ----------
        stamp_s : float or None
            The camera's stamp in seconds; None or 0 where it has no clock.
        arrival_s : float
            When the frame arrived, by `time.monotonic`.

        Returns
        -------
        float
            By `time.monotonic`: later than that of the last frame, and not after ``arrival_s``.
        """
        last_stamp_s, last_s = self._last or (None, float("-inf"))
        if not stamp_s or (last_stamp_s is not None and stamp_s <= last_stamp_s):
            # No clock, or one that started anew.
            self._differences.clear()
            taken_s = arrival_s
        else:
            self._differences.append(arrival_s - stamp_s)
            taken_s = min(round(stamp_s + min(self._differences), 9), arrival_s)
        if taken_s <= last_s or arrival_s - taken_s > 2:  # stamps whose unit is not what it was said to be
            self._differences.clear()
            taken_s = arrival_s
        self._last = (stamp_s or 0.0, taken_s)
        return taken_s


def split_settings(spec: str) -> tuple[str, dict[str, str]]:
    """Split a specification into what names the camera and the settings after it.

    Settings stand at the end, each after a comma: ``NAME=VALUE``, or a name alone. A comma within a path
    stays where what follows it is no setting.

    Examples
    --------
    >>> split_settings("0815-0000,PixelFormat=BayerRG12")
    ('0815-0000', {'PixelFormat': 'BayerRG12'})
    >>> split_settings("C:/slides, old/a.avi,loop")
    ('C:/slides, old/a.avi', {'loop': ''})
    >>> split_settings("PixelFormat=Mono8")
    ('', {'PixelFormat': 'Mono8'})
    """
    settings: dict[str, str] = {}
    if re.match(r"[A-Za-z]\w*=", spec):
        spec = f",{spec}"
    while found := re.fullmatch(r"(.*),([A-Za-z]\w*)(?:=([^,]*))?", spec, re.DOTALL):
        spec, name, value = found.groups()
        settings[name] = value or ""
    return spec, dict(reversed(settings.items()))


def refuse_unknown_settings(settings: Mapping[str, str], known: Sequence[str], where: str) -> None:
    """Raise `CameraError` for a setting that this kind of camera does not have; it lists those it has."""
    for name in settings:
        if name not in known:
            raise CameraError(
                f"there is no setting {name!r} for this kind of camera",
                where,
                f"Choose from: {', '.join(known)}." if known else "Leave it out.",
            )


def there_are(cameras: Sequence[CameraInfo], none: str) -> str:
    """Return the sentence that lists the cameras that can be opened; ``none`` where there are none."""
    if not cameras:
        return none
    return f"There are: {'; '.join(f'{camera.spec} ({camera.name})' for camera in cameras)}."


def objective_in(label: str) -> str:
    """Return the objective that a label names, such as ``"20x"``; empty where it names none.

    Examples
    --------
    >>> objective_in("Nikon 10X S Fluor"), objective_in("Plan Apo 2.5x/0.08"), objective_in("Objective-2")
    ('10x', '2.5x', '')
    """
    found = re.search(r"(?<![\w.])(?:Res)?(\d+(?:\.\d+)?)\s*[xX×](?![A-Za-z])", label)
    return objective_of(float(found[1])) if found else ""
