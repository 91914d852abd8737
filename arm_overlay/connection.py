"""A connection to a camera: the thread that waits for its frames, and how one tells that a driver hangs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from arm_overlay.cameras import Camera
from arm_overlay.frames import Frame

# A driver that comes back from a call so much later than it may is left to itself.
HUNG_GRAB_S, HUNG_OPEN_S = 1.0, 30.0


class Connection:
    """One connection to a camera, from opening it until it fails or is given up.

    Parameters
    ----------
    new_camera : callable
        Returns the camera, not opened; called in the connection's own thread.
    prepare : callable, optional
        ``prepare(camera)`` sets the open camera up.
    """

    def __init__(
        self, new_camera: Callable[[], Camera], prepare: Callable[[Camera], object] | None = None
    ) -> None:
        self._new_camera = new_camera
        self._prepare = prepare
        self._camera: Camera | None = None
        self._given_up = threading.Event()
        self._thread: threading.Thread | None = None
        # What the driver was asked for, and since when; one value, since another thread reads it.
        self._asked = ("open", time.monotonic())
        self.name = ""
        self.interval_s: float | None = None
        self.grab_timeout_s = 1.0
        self.opened = threading.Event()
        self.error: Exception | None = None
        self.last_number: int | None = None

    def start(self, arrived: Callable[[Connection, Frame], None]) -> None:
        """Open the camera and call ``arrived(connection, frame)`` for each frame, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(arrived,), name="arm camera", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether its thread has ended: the camera failed, ended, or was given up."""
        return self._thread is not None and not self._thread.is_alive()

    def hangs(self, now_s: float) -> bool:
        """Tell whether the driver has not come back for much longer than it may take."""
        call, since_s = self._asked
        limit_s = HUNG_OPEN_S if call == "open" else self.grab_timeout_s + HUNG_GRAB_S
        return not self.over and now_s - since_s > limit_s

    def give_up(self) -> None:
        """Close the camera and end the thread, without waiting: closing may hang as well."""
        self._given_up.set()
        threading.Thread(target=self._close, name="arm camera closing", daemon=True).start()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, arrived: Callable[[Connection, Frame], None]) -> None:
        try:
            self._camera = self._new_camera()
            self._camera.open()
            if self._prepare is not None:
                self._prepare(self._camera)
            self.name = self._camera.name
            self._learn_interval(self._camera)
            self.opened.set()
            while not self._given_up.is_set():
                self._asked = ("grab", time.monotonic())
                frame = self._camera.grab(self.grab_timeout_s)
                if not self._given_up.is_set():
                    arrived(self, frame)
        except Exception as error:  # whatever a driver does wrong, the loop must go on
            self.error = error
        finally:
            self._asked = ("close", time.monotonic())
            self._close()

    def _learn_interval(self, camera: Camera) -> None:
        """Ask how often frames come, which a driver may not know, and wait for each accordingly."""
        exposure_ms = None
        with contextlib.suppress(Exception):
            self.interval_s, exposure_ms = camera.frame_interval_s, camera.exposure_ms
        self.grab_timeout_s = max(1.0, 4 * (self.interval_s or 0.0), 4e-3 * (exposure_ms or 0.0))

    def _close(self) -> None:
        if self._camera is not None:
            with contextlib.suppress(Exception):
                self._camera.close()
