"""One run of the augmented-reality microscope: what ``lincei arm`` runs, steered by a widget."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lincei.batch import readable_error
from lincei.progress import CancelCheck, stop_if_cancelled

if TYPE_CHECKING:
    from arm_overlay.arm_commands import Assembled
    from arm_overlay.loop import Loop
    from arm_overlay.settings import ArmOptions
    from lincei.progress import ProgressCallback

_LOOK_EVERY_S = 0.05
# Ending takes a fraction of a second, but a record is written to its end (`arm_overlay.recording` waits for a
# disk no longer than this).
_LONGEST_END_S = 15.0


class LiveSession:
    """The microscope from its start to its end; `run` is a job, all else is called by the window.

    Parameters
    ----------
    options : ArmOptions
        As ``lincei arm`` takes them.
    on_failed : callable
        Takes the sentence of a control that failed, from any thread.

    Attributes
    ----------
    parts : Assembled or None
        The running loop and its colors; None before the camera is open, and after the end.
    loop : Loop or None
        The same loop, which can be asked what happened when it is over, too.
    sentences : deque of str
        What the user should read; taken from the left by the window.
    """

    def __init__(self, options: ArmOptions, on_failed: Callable[[str], object]) -> None:
        self.options = options
        self.parts: Assembled | None = None
        self.loop: Loop | None = None
        self.sentences: deque[str] = deque(maxlen=50)
        self._on_failed = on_failed
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None
        # A model may take a second to load, a record's end longer; the window goes on meanwhile.
        self._controls = ThreadPoolExecutor(1, thread_name_prefix="lincei-microscope-controls")

    def run(self, progress: ProgressCallback, cancelled: CancelCheck) -> dict[str, Any]:  # noqa: ARG002
        """Open everything and run until it is cancelled; return the loop's statistics when a film is over.

        Raises
        ------
        LinceiError
            When camera, display, model or a folder cannot be used.
        CancelledError
            When it was cancelled; the camera is free then.
        """
        from arm_overlay.arm_commands import assembled

        def over() -> bool:
            return cancelled() or self._stopping.is_set()

        try:
            with assembled(self.options, tell=self.sentences.append) as parts:
                self.loop = loop = parts.loop
                loop.start(cancelled=over)
                self.parts = parts
                try:
                    while not (over() or loop.finished):
                        loop.wait(_LOOK_EVERY_S)
                finally:
                    self.parts = None
                    loop.stop()
                if self._error is not None:
                    raise self._error
                stop_if_cancelled(over)
                return loop.statistics()
        finally:
            self._controls.shutdown(wait=False, cancel_futures=True)
            self._ended.set()

    def stop(self) -> None:
        """Stop, and wait until the camera is free and what was recorded is written."""
        self._stopping.set()
        self._ended.wait(_LONGEST_END_S)

    def fail(self, error: Exception) -> None:
        """End with an error of the window, which `run` raises."""
        self._error = error
        self._stopping.set()

    def do(self, name: str, *values: object) -> None:
        """Call a method of the running loop by its name, one after the other, in a thread."""
        parts = self.parts
        if parts is not None and not self._stopping.is_set():
            future = self._controls.submit(getattr(parts.loop, name), *values)
            future.add_done_callback(self._was_done)

    def _was_done(self, future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            with contextlib.suppress(RuntimeError):  # the window is gone
                self._on_failed(str(readable_error(error) or f"{type(error).__name__}: {error}"))
