"""A worker process and the jobs that run in it, for programs in Python that must not do the work themselves.

The other end of `lincei.worker`. napari uses it, since no process with a window imports TensorFlow.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lincei import __version__
from lincei.errors import CancelledError, LinceiError
from lincei.progress import Progress, ProgressCallback
from lincei.worker import SCRIPT, share

INIT_SCRIPT = "import lincei.worker"
# A version without a worker is told as well.
_GREETING = """
import lincei
task.outputs["lincei"] = lincei.__version__
try:
    import lincei.worker
except ImportError as error:
    task.outputs["problem"] = str(error)
"""
_WORKER = ("-c", "import appose.python_worker; appose.python_worker.main()")
_INSTALL = "Install it with: pip install 'lincei[napari]'"
_LOG_LINES = 12
_LINES_KEPT = 400
_END_S = 5.0

DoneCallback = Callable[["RunningJob"], None]


class RunningJob:
    """A job in a worker process; made by `WorkerProcess.start`.

    Attributes
    ----------
    name : str
        The job's name.
    warnings : tuple of str
        What the user should know besides the result, in sentences; there when the job is done.
    log : str
        The traceback of an error that was not foreseen; empty otherwise.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        name: str,
        progress: ProgressCallback | None,
        on_done: DoneCallback | None,
    ) -> None:
        self.name = name
        self.warnings: tuple[str, ...] = ()
        self.log = ""
        self._worker = worker
        self._progress = progress
        self._on_done = on_done
        self._lock = threading.Lock()
        self._cancel_asked, self._finish_asked = threading.Event(), threading.Event()
        self._task: Any = None
        self._ended = threading.Event()  # the task, not yet its outputs
        self._done = threading.Event()
        self._result: Mapping[str, Any] = {}
        self._error: BaseException | None = None
        self._callback_error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    def cancel(self) -> None:
        """Ask the job to stop; it does so at its next safe point and raises `CancelledError` in `wait`."""
        with self._lock:
            self._cancel_asked.set()
            task = self._task
        if task is not None and not self.is_done:
            with contextlib.suppress(OSError, ValueError):  # the process has just ended
                task.cancel()

    def finish(self) -> None:
        """Ask the job to end early with what it has: a training writes its best model so far."""
        with self._lock:
            self._finish_asked.set()
            task = self._task
        if task is not None and not self.is_done:
            with contextlib.suppress(OSError, ValueError):
                self._worker._send_finish(task)

    def wait(self, timeout_s: float | None = None) -> Mapping[str, Any]:
        """Wait for the result.

        Parameters
        ----------
        timeout_s : float, optional
            How long to wait; without limit when left out.

        Returns
        -------
        mapping
            What the job gives back; arrays are this process's own.

        Raises
        ------
        LinceiError
            When the job failed, or the worker process ended or could not be started.
        CancelledError
            When it was canceled.
        TimeoutError
            When it is not done in time; it runs on.
        """
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"the job {self.name!r} is not done after {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._result

    # In a thread of the job's own

    def _run(self, data: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        blocks: list[Any] = []
        try:
            self._result = self._answer(data, options, blocks)
        except BaseException as error:
            self._error = error
        finally:
            for block in blocks:
                _free(block)
        self._worker._forget(self)
        self._done.set()
        if self._on_done is not None:
            self._on_done(self)

    def _answer(
        self, data: Mapping[str, Any], options: Mapping[str, Any], blocks: list[Any]
    ) -> Mapping[str, Any]:
        service = self._worker._service()
        if self._cancel_asked.is_set():
            raise CancelledError
        inputs = {"job": self.name, "data": _sent(dict(data), blocks), "options": _sent(dict(options), [])}
        task = service.task(SCRIPT, inputs)
        task.listen(self._on_event)
        try:
            task.start()
        except (OSError, ValueError):  # the pipe is broken, or was closed
            raise self._worker._crashed() from None
        with self._lock:
            self._task = task
        if self._cancel_asked.is_set():
            self.cancel()
        if self._finish_asked.is_set():
            self.finish()
        while not self._ended.wait(1.0):
            # Appose overlooks a process that ends between two of its own looks.
            if not service.is_alive() and not self._ended.wait(2.0):
                raise self._worker._crashed()
        return self._outcome(task)

    def _outcome(self, task: Any) -> Mapping[str, Any]:
        """Return the outputs of a task that has ended, or raise what became of it."""
        if self._callback_error is not None:
            _fetched(task.outputs)
            raise self._callback_error
        if task.status.name == "CRASHED":
            raise self._worker._crashed()
        if task.status.name == "CANCELED":
            raise CancelledError
        if task.status.name == "FAILED":
            self.log = str(task.error)
            last = self.log.strip().splitlines()[-1:] or ["it gave no reason"]
            raise LinceiError(
                f"the worker could not run the job {self.name!r} ({last[0]})",
                str(self._worker.python),
                "Check that lincei is installed there: lincei doctor",
            )
        outputs = _fetched(task.outputs)
        self.warnings = tuple(outputs.pop("warnings", ()))
        error = outputs.get("error")
        if error is not None:
            self.log = error["log"]
            raise LinceiError(error["what"], error["where"], error["what_to_do"])
        return outputs

    def _on_event(self, event: Any) -> None:
        """Hear the task, in a thread of Appose's."""
        kind = event.response_type.name
        if kind == "UPDATE" and self._progress is not None and self._callback_error is None:
            try:
                self._progress(_progress_of(event))
            except Exception as error:  # Appose would take it for a line that it cannot read
                self._callback_error = error
                self.cancel()
        elif kind in ("COMPLETION", "CANCELATION", "FAILURE", "CRASH"):
            self._ended.set()


class WorkerProcess:
    """A process that runs jobs for this one; it starts with the first job.

    Use it in a ``with`` statement, or call `close`. When this process ends without that, so does the worker.

    Parameters
    ----------
    python : str or Path, optional
        Interpreter of an environment with lincei and Appose, which need not be this one; by default this
        program's own.
    environment : mapping of str to str, optional
        Environment variables for it, besides those of this process.

    Raises
    ------
    LinceiError
        When Appose is not installed here.

    Examples
    --------
    >>> with WorkerProcess() as worker:  # doctest: +SKIP
    ...     job = worker.start("label", {"image": array, "axes": "ZYX"}, {"model": ["motor-neurons"]})
    ...     mean = job.wait()["statistics"]["mean"]
    """

    def __init__(
        self, python: str | Path | None = None, *, environment: Mapping[str, str] | None = None
    ) -> None:
        if importlib.util.find_spec("appose") is None:
            raise LinceiError("Appose, which runs work in another process, is not installed", "", _INSTALL)
        self.python = Path(python if python is not None else sys.executable).expanduser()
        self._environment = dict(environment or {})
        self._lock = threading.Lock()  # of the process's start and end
        self._jobs_lock = threading.Lock()
        self._jobs: set[RunningJob] = set()
        self._appose: Any = None
        self._greeted = False
        self._closed = False
        self._last_words = ""
        _open_workers.add(self)

    def start(
        self,
        job: str,
        data: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        progress: ProgressCallback | None = None,
        on_done: DoneCallback | None = None,
    ) -> RunningJob:
        """Start a job and return at once; errors come from the job's `RunningJob.wait`.

        Parameters
        ----------
        job : str
            Its name, see `lincei.worker`.
        data : mapping, optional
            What it works on: JSON-able values, paths and NumPy arrays, nested at will. Do not change the
            arrays before it is done.
        options : mapping, optional
            Fields of the job's options class, by name.
        progress : callable, optional
            Hears the job's progress, in a thread that is not this one.
        on_done : callable, optional
            Called with the job when it has ended, in whatever way, in a thread that is not this one.

        Raises
        ------
        LinceiError
            When this was closed.
        """
        running = RunningJob(self, job, progress, on_done)
        with self._jobs_lock:
            if self._closed:
                raise LinceiError("the worker process was closed", "", "Open another one.")
            self._jobs.add(running)
        # A daemon, and so are Appose's threads when it starts them: they must keep no program from ending.
        thread = threading.Thread(
            target=running._run, args=(data or {}, options or {}), name=f"lincei-job-{job}", daemon=True
        )
        thread.start()
        return running

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._appose is not None and bool(self._appose.is_alive())

    def close(self, timeout_s: float = 15.0) -> None:
        """Cancel what runs, wait for it, and end the process; nothing of it is left then.

        Parameters
        ----------
        timeout_s : float
            How long jobs may take to stop (a training writes its state); then the process is killed.
        """
        with self._jobs_lock:
            self._closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        deadline_s = time.monotonic() + timeout_s
        for job in jobs:
            job._done.wait(max(0.0, deadline_s - time.monotonic()))
        with self._lock:
            service, self._appose = self._appose, None
        if service is not None:
            _end(service, kill_at_once=not all(job.is_done for job in jobs))
            for job in jobs:
                job._done.wait(_END_S)
        _open_workers.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For the jobs, in their threads

    def _service(self) -> Any:
        """Return the running service; starts the process, also after one that has crashed."""
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._appose is not None and not self._appose.is_alive():
                _end(self._appose, kill_at_once=True)
                self._appose = None
            if self._appose is None:
                self._appose = self._started()
                self._greet(self._appose)
            return self._appose

    def _started(self) -> Any:
        from appose.service import Service

        # A bare name ("python3") is looked for as a shell does; a path is kept as it is, for it may be a link
        # into another environment's interpreter.
        program = shutil.which(str(self.python))
        if program is None:
            raise LinceiError(
                "there is no such Python, or it cannot be run",
                str(self.python),
                "Choose the python program of an environment with lincei.",
            )
        # Python's modules are not looked for in the working folder, which may hold anything.
        variables: dict[str, str | None] = {"PYTHONSAFEPATH": "1"}
        if self.python != Path(sys.executable):
            variables["PYTHONHOME"] = None  # of this Python
        # Built by hand rather than by Appose's environments: these may look for tools and download them.
        service = Service(Path.cwd(), {**variables, **self._environment}, program, *_WORKER)
        service.init(INIT_SCRIPT)
        try:
            service.start()
        except (OSError, subprocess.SubprocessError) as error:
            raise LinceiError(
                f"the worker process could not be started ({error})", program, "Choose another Python."
            ) from error
        return service

    def _greet(self, service: Any) -> None:
        """Compare the versions of both ends.

        Raises
        ------
        LinceiError
            When the worker has no lincei, or another one; the process is ended then.
        """
        ended = threading.Event()
        task = service.task(_GREETING)
        finals = ("COMPLETION", "CANCELATION", "FAILURE", "CRASH")
        task.listen(lambda event: ended.set() if event.response_type.name in finals else None)
        with contextlib.suppress(OSError, ValueError):
            task.start()
        while not ended.wait(0.5):
            if not service.is_alive():
                ended.wait(2.0)
                break
        version = task.outputs.get("lincei", "")
        problem = str(task.outputs.get("problem", "") or task.error or "")
        if task.status.name == "COMPLETE" and version == __version__ and not problem:
            return
        self._appose = None
        what = _mismatch(task.status.name, version, problem, _last_lines(service))
        _end(service, kill_at_once=True)
        raise LinceiError(
            what,
            str(self.python),
            f"Install lincei {__version__} there (pip install 'lincei[train]=={__version__}' appose), "
            "or choose another Python.",
        )

    def _crashed(self) -> LinceiError:
        """Return what is said when the process has ended in the middle of a job."""
        service = self._appose
        said = ""
        if service is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service._process.wait(_END_S)
            service._stderr_thread.join(1.0)
            said = _last_lines(service)
        status = service._process.returncode if service is not None else None
        how = f"status {status}" if status is None or status >= 0 else f"signal {-status}"
        return LinceiError(
            f"the worker process ended in the middle of the job ({how})"
            + (f"; it said: {said}" if said else ""),
            str(self.python),
            "Start the job again; if it happens again, the computer may be short of memory.",
        )

    def _send_finish(self, task: Any) -> None:
        service = self._appose
        if service is not None:
            inputs = {"job": "finish", "data": {"task": task.uuid}, "options": {}}
            service.task(SCRIPT, inputs).start()

    def _forget(self, job: RunningJob) -> None:
        with self._jobs_lock:
            self._jobs.discard(job)
        service = self._appose
        if service is not None:
            del service.error_lines()[:-_LINES_KEPT]


# Strong references: an object that everybody has forgotten may still have a process.
_open_workers: set[WorkerProcess] = set()


def _close_all() -> None:
    """End the workers of a program that ends without having closed them."""
    for worker in list(_open_workers):
        with contextlib.suppress(Exception):
            worker.close()


atexit.register(_close_all)


def _mismatch(status: str, version: str, error: str, said: str) -> str:
    """Say why a Python cannot be the worker."""
    if version and version != __version__:
        return f"this Python has lincei {version}, and this program is lincei {__version__}"
    if "No module named 'lincei" in error:
        return f"this Python has no lincei {__version__}"
    if "No module named 'appose" in said:
        return "this Python has no Appose"
    detail = (error.strip().splitlines() or [said or status.lower()])[-1]
    return f"this Python could not be made the worker of lincei {__version__} ({detail})"


def _last_lines(service: Any) -> str:
    """Return the last lines of a worker's error stream, without Appose's advice."""
    lines = [line.strip() for line in service.error_lines()]
    return " / ".join([line for line in lines if line and not line.startswith("[WARNING]")][-_LOG_LINES:])


def _end(service: Any, *, kill_at_once: bool) -> None:
    """End a service's process, its pipes and its threads."""
    process = service._process
    with contextlib.suppress(OSError, ValueError):
        service.close()
    try:
        if kill_at_once:
            process.kill()
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for thread in (service._stdout_thread, service._stderr_thread, service._monitor_thread):
        thread.join(_END_S)
    for pipe in (process.stdout, process.stderr):
        with contextlib.suppress(OSError, ValueError):
            pipe.close()
    # Where the init script could not be run, Appose leaves it behind.
    path = service._env_vars.get("APPOSE_INIT_SCRIPT")
    if path:
        Path(path).unlink(missing_ok=True)


def _progress_of(event: Any) -> Progress:
    """Return a task's update as the job sent it."""
    info = event.info or {}
    metrics = {name: math.nan if value is None else value for name, value in info.get("metrics", {}).items()}
    preview = info.get("preview")
    picture: NDArray[Any] | None = None
    if preview is not None:
        pixels = np.frombuffer(base64.b64decode(preview["base64"]), np.dtype(preview["dtype"]))
        picture = pixels.reshape(preview["shape"])
    return Progress(
        info.get("stage", ""), event.current or 0, event.maximum or 0, event.message or "", metrics, picture
    )


def _sent(value: Any, blocks: list[Any]) -> Any:
    """Return a job's data as Appose can send it; the blocks of shared memory that this makes are noted."""
    if isinstance(value, np.ndarray):
        shared = share(value)
        blocks.append(shared.shm)
        return shared
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _sent(item, blocks) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sent(item, blocks) for item in value]
    return value


def _fetched(value: Any) -> Any:
    """Return outputs with this process's own copies of the arrays; their shared memory is freed."""
    if hasattr(value, "ndarray") and hasattr(value, "shm"):
        array = value.ndarray().copy()
        _free(value.shm)
        return array
    if isinstance(value, Mapping):
        return {name: _fetched(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_fetched(item) for item in value]
    return value


def _free(block: Any) -> None:
    """Let go of a block of shared memory and remove it."""
    with contextlib.suppress(OSError):
        block.unlink()
    with contextlib.suppress(BufferError, OSError):
        block.close()
