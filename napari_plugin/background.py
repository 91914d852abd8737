"""A job in a thread of its own: its progress, its warnings, its end, and how it is stopped.

A job is a function of two arguments, ``progress`` and ``cancelled`` (see `lincei.progress`). It never touches
layers or widgets: what it returns comes back to the window's thread by a signal.
"""

from __future__ import annotations

import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from qtpy.QtCore import QObject, Signal

from lincei.batch import readable_error
from lincei.errors import CancelledError, LinceiWarning
from lincei.progress import CancelCheck, Progress, ProgressCallback

Job = Callable[[ProgressCallback, CancelCheck], Any]

# The window is told no more often than this; reports with figures or a picture are never left out.
_LEAST_S = 0.05
# A window that closes waits no longer than this for a job that was told to stop.
STOPPING_S = 10.0


class BackgroundJob(QObject):
    """One job, started at once; lives as long as the job runs.

    Parameters
    ----------
    job : callable
        Called in a thread as ``job(progress, cancelled)``.
    name : str
        Names the thread.

    Attributes
    ----------
    progressed : Signal(Progress)
        A report of the job.
    warned : Signal(str)
        A sentence that the user should read; the result stands.
    returned : Signal(object)
        What the job returned.
    failed : Signal(str, str)
        Why it failed, as a sentence, and the traceback (empty when the user can act on the sentence).
    cancelled : Signal()
        It has stopped because it was told to.
    finished : Signal()
        Sent after one of the last three.
    """

    progressed = Signal(object)
    warned = Signal(str)
    returned = Signal(object)
    failed = Signal(str, str)
    cancelled = Signal()
    finished = Signal()

    def __init__(self, job: Job, name: str = "job") -> None:
        super().__init__()
        self._job = job
        self._stop = threading.Event()
        self._reported_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"lincei-{name}", daemon=True)

    def start(self) -> None:
        """Begin; signals are to be connected before."""
        self._thread.start()

    def cancel(self) -> None:
        """Ask the job to stop; it does at its next step."""
        self._stop.set()

    @property
    def is_running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def wait(self, timeout_s: float = STOPPING_S) -> bool:
        """Wait until the thread has ended and tell whether it has."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with _SINKS.warnings_to(self._warn):
            try:
                result = self._job(self._report, self._stop.is_set)
            except CancelledError:
                self._send(self.cancelled)
            except Exception as error:  # whatever fails in a job must not end the window
                readable = readable_error(error)
                if readable is not None:
                    self._send(self.failed, str(readable), "")
                else:
                    self._send(
                        self.failed,
                        f"This failed because of a fault in the program ({type(error).__name__}: {error}).",
                        traceback.format_exc(),
                    )
            else:
                self._send(self.returned, result)
        self._send(self.finished)

    def _report(self, update: Progress) -> None:
        now = time.monotonic()
        is_last = update.total > 0 and update.done >= update.total
        if update.metrics or update.preview is not None or is_last or now - self._reported_s >= _LEAST_S:
            self._reported_s = now
            self._send(self.progressed, update)

    def _warn(self, sentence: str) -> None:
        self._send(self.warned, sentence)

    def _send(self, signal: Any, *values: Any) -> None:
        try:
            signal.emit(*values)
        except RuntimeError:  # the window is gone, and the Qt side of this object with it
            self._stop.set()


class _Sinks:
    """Sends the warnings of a thread to whom they concern; those of other threads go where they went.

    Python has one place for the warnings of all threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_thread: dict[int, Callable[[str], None]] = {}
        self._previous: Callable[..., None] | None = None

    def warnings_to(self, sink: Callable[[str], None]) -> _Redirected:
        """Return a context within which this thread's `LinceiWarning` go to ``sink``."""
        return _Redirected(self, sink)

    def add(self, sink: Callable[[str], None]) -> None:
        with self._lock:
            if not self._of_thread:
                self._previous = warnings.showwarning
                warnings.showwarning = self._show
            self._of_thread[threading.get_ident()] = sink
            # Each time, not only the first: another image may have the same fault.
            warnings.filterwarnings("always", category=LinceiWarning)

    def remove(self) -> None:
        with self._lock:
            del self._of_thread[threading.get_ident()]
            # Only when nobody else has put something over it meanwhile.
            if not self._of_thread and warnings.showwarning == self._show and self._previous is not None:
                warnings.showwarning = self._previous

    def _show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        sink = self._of_thread.get(threading.get_ident())
        if sink is not None and issubclass(category, LinceiWarning):
            sink(str(message))
        elif self._previous is not None:
            self._previous(message, category, filename, lineno, file, line)


class _Redirected:
    def __init__(self, sinks: _Sinks, sink: Callable[[str], None]) -> None:
        self._sinks, self._sink = sinks, sink

    def __enter__(self) -> None:
        self._sinks.add(self._sink)

    def __exit__(self, *_error: object) -> None:
        self._sinks.remove()


_SINKS = _Sinks()
