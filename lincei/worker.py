"""Jobs for other programs: what runs in a worker process that Appose started.

Each client (napari, ImageJ, CellProfiler) starts an Appose Python service with the init script
``import lincei.worker`` and gives it tasks with the script ``SCRIPT``, whose inputs are

``job`` : str
    Name of a job. A tool lists its jobs in ``JOBS : dict[str, str]`` beside the ``COMMANDS`` of its module
    (see `lincei.cli`): ``{"label": "insilico.jobs:label"}``. They are imported when they are first asked for.
``data`` : mapping
    What the job works on: JSON-able values, and arrays as Appose's NDArray in shared memory. The client frees
    that memory when the task has ended.
``options`` : mapping
    Fields of the job's options class, by name.

The function of a job is ``function(data, options, *, progress, cancelled)`` and returns a mapping of
JSON-able values and arrays. Arrays in ``data`` are read-only and gone when it has returned. One that also
takes ``finish`` can be asked to end early and to keep what it has; one that keeps its state when it is
canceled states in an attribute ``grace_s`` how long that may take after the client has died.

The task's outputs are what the function returned (arrays as NDArray; the client frees them too), or
``{"error": {"what", "where", "what_to_do", "log"}}``: a sentence in three parts as in `LinceiError`, and a
traceback where the error was not foreseen. A task never fails. One that was canceled while it ran is reported
as canceled. ``"warnings"`` lists in sentences what the user should know besides.

Updates bring the message, ``current`` of ``maximum`` (0 while unknown) and in ``info`` the ``stage``, the
``metrics`` (numbers; null where one is not finite) and a ``preview``, null or
``{"shape", "dtype", "base64"}``: previews are small, and no memory need be freed for them.

Jobs of the worker itself: ``"finish"`` (data ``{"task": UUID}``, as Appose's task has it) asks a running task
to end early and keep what it has; ``"jobs"`` lists the names of the jobs.

Imported into an Appose worker, this module keeps the protocol's pipes to itself (what libraries print goes to
the error stream) and ends the process when the client has died.
"""

from __future__ import annotations

import base64
import gc
import inspect
import math
import os
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

# Also because on Windows NumPy hangs when it is first imported while another thread reads stdin.
import numpy as np
from numpy.typing import NDArray

from lincei import __version__
from lincei.batch import readable_error
from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.progress import Progress

# What clients send; it stays as it is, so that old clients and new workers understand each other.
SCRIPT = "import lincei.worker\nlincei.worker.run(task, job, data, options)"

_UPDATE_EVERY_S = 0.05
_WATCH_EVERY_S = 0.2
# After the client's death jobs have so long to stop, unless they say otherwise.
_GRACE_S = 0.5


class _Running:
    """A job that runs: how it is asked to end, and what it has warned of."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.finish = threading.Event()
        self.thread = threading.get_ident()
        self.warnings: list[str] = []
        self.blocks: list[Any] = []
        self.grace_s = _GRACE_S

    def cancelled(self) -> bool:
        """Tell whether the client asked to cancel, or has died."""
        return bool(self.task.cancel_requested) or _client_gone.is_set()


_running: dict[str, _Running] = {}
_running_lock = threading.Lock()
_client_gone = threading.Event()
# Results that the client has been told of and frees; removed here when it dies before that.
_handed_over: deque[str] = deque(maxlen=256)
# Windows frees a block with its last handle, so ours stay open until later results push them out.
_kept_open: deque[Any] = deque(maxlen=8)


def run(task: Any, job: str, data: Mapping[str, Any] | None, options: Mapping[str, Any] | None) -> None:
    """Run a job for a client; called by the script that clients send.

    Parameters
    ----------
    task : appose.python_worker.Task
        Its outputs become the result or the error; it ends as canceled when the job was.
    job, data, options
        See the module's documentation.
    """
    running = _Running(task)
    _listen_for_warnings()
    with _running_lock:
        _running[task._uuid] = running
    try:
        task.outputs.update(_outputs(running, str(job), data or {}, options or {}))
    except CancelledError:
        task.cancel()
    finally:
        _release(running.blocks)
        with _running_lock:
            del _running[task._uuid]


def about() -> dict[str, str]:
    """Return the versions of lincei and Python and the process's number, for a client to compare."""
    return {"lincei": __version__, "python": sys.version.split()[0], "pid": str(os.getpid())}


def _outputs(
    running: _Running, job: str, data: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a job gives back, or its error.

    Raises
    ------
    CancelledError
        When the job was canceled.
    """
    reporter = _Reporter(running.task)
    try:
        function = _function(job)
        running.grace_s = float(getattr(function, "grace_s", _GRACE_S))
        supplied = {"progress": reporter, "cancelled": running.cancelled, "finish": running.finish.is_set}
        if "finish" not in inspect.signature(function).parameters:
            del supplied["finish"]
        received = _received(dict(data), running.blocks)
        result = function(received, dict(options), **supplied)
        reporter.flush()
        outputs = {str(name): _sendable(value) for name, value in result.items()}
    except CancelledError:
        raise
    except BaseException as error:  # a library may even raise SystemExit, and the client waits for an answer
        reporter.flush()
        outputs = {"error": _error(error, job)}
        # Its frames hold arrays of the shared memory that is about to be freed.
        traceback.clear_frames(error.__traceback__)
    outputs["warnings"] = list(dict.fromkeys(running.warnings))
    return outputs


def _error(error: BaseException, job: str) -> dict[str, str]:
    """Return an error in the form in which clients get it."""
    readable = readable_error(error)
    if readable is not None:
        log = "" if isinstance(error, LinceiError) else "".join(traceback.format_exception(error))
        return _parts(readable, log)
    log = "".join(traceback.format_exception(error))
    print(log, file=sys.stderr, flush=True)
    unforeseen = LinceiError(
        f"something went wrong that lincei did not foresee ({type(error).__name__}: {error})",
        f"job {job}",
        "Please report it to the lincei developers together with the log.",
    )
    return _parts(unforeseen, f"lincei {__version__}\n{log}")


def _parts(error: LinceiError, log: str) -> dict[str, str]:
    return {"what": error.what, "where": error.where, "what_to_do": error.what_to_do, "log": log}


def needed(data: Mapping[str, Any], *names: str) -> list[Any]:
    """Return entries of a job's data that it cannot do without.

    Raises
    ------
    UsageError
        When one is missing or null.
    """
    for name in names:
        if data.get(name) is None:
            given = ", ".join(map(str, data)) or "none"
            raise UsageError(f"the job's data have no {name!r}", "", f"Given: {given}.")
    return [data[name] for name in names]


# Jobs


def find_jobs() -> dict[str, str]:
    """Return the jobs of all installed tools: name to ``"module:function"``; of two the first tool's wins."""
    from lincei.cli import find_tools

    jobs: dict[str, str] = {}
    for tool in find_tools():
        for name, target in getattr(tool.module, "JOBS", {}).items():
            jobs.setdefault(str(name), str(target))
    return jobs


_found: dict[str, str] = {}


def _function(job: str) -> Callable[..., Mapping[str, Any]]:
    """Return the function of a job, importing its module."""
    own = {"finish": _finish, "jobs": _list_jobs}
    if job in own:
        return own[job]
    if job not in _found:
        _found.update(find_jobs())
    if job not in _found:
        from lincei.cli import find_tools

        broken = "".join(f" The tool {t.name!r} is broken: {t.problem}." for t in find_tools() if t.problem)
        raise UsageError(
            f"there is no job {job!r}", "", f"There are: {', '.join(sorted([*_found, *own]))}.{broken}"
        )
    module, _, name = _found[job].partition(":")
    function: Callable[..., Mapping[str, Any]] = getattr(import_module(module), name)
    return function


def _finish(data: Mapping[str, Any], options: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    """Ask a running task to end early; ``"found"`` tells whether it still ran."""
    del options
    (task,) = needed(data, "task")
    with _running_lock:
        running = _running.get(str(task))
    if running is not None:
        running.finish.set()
    return {"found": running is not None}


def _list_jobs(data: Mapping[str, Any], options: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    del data, options
    return {"jobs": sorted(find_jobs())}


# Progress and warnings


class _Reporter:
    """Sends progress to the client, 20 times a second at most.

    What brings a message, metrics, a preview or another stage is always sent, and so is the last report.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._stage: str | None = None
        self._sent_s = -math.inf
        self._waiting: Progress | None = None

    def __call__(self, update: Progress) -> None:
        says_more = bool(update.message or update.metrics) or update.preview is not None
        if says_more or update.stage != self._stage or time.monotonic() - self._sent_s >= _UPDATE_EVERY_S:
            self._send(update)
        else:
            self._waiting = update

    def flush(self) -> None:
        """Send the last report where it was held back."""
        if self._waiting is not None:
            self._send(self._waiting)

    def _send(self, update: Progress) -> None:
        self._waiting, self._stage, self._sent_s = None, update.stage, time.monotonic()
        info = {
            "stage": update.stage,
            "metrics": {name: _sendable(float(value)) for name, value in update.metrics.items()},
            "preview": None if update.preview is None else _preview(np.asarray(update.preview)),
        }
        self._task.update(update.message, update.done, update.total, info)


def _preview(picture: NDArray[Any]) -> dict[str, Any]:
    return {
        "shape": list(picture.shape),
        "dtype": picture.dtype.name,
        "base64": base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode("ascii"),
    }


def _listen_for_warnings() -> None:
    """Have warnings come to `_on_warning`, also when a job before has changed that.

    `warnings.catch_warnings` changes the whole process, so jobs in several threads cannot each use their own.
    """
    if _appose_worker() is not None:
        warnings.showwarning = _on_warning
        warnings.simplefilter("always", LinceiWarning)


def _on_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Give a warning to the job whose thread it comes from, or else to all: a job may have threads too."""
    if not issubclass(category, LinceiWarning):
        print(f"{category.__name__}: {message}", file=sys.stderr)
        return
    thread = threading.get_ident()
    with _running_lock:
        jobs = list(_running.values())
    for running in [job for job in jobs if job.thread == thread] or jobs:
        running.warnings.append(str(message))


# Values on their way


def _received(value: Any, blocks: list[Any]) -> Any:
    """Return what a client sent with its arrays as NumPy arrays; their blocks are noted."""
    if isinstance(value, Mapping):
        return {name: _received(item, blocks) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_received(item, blocks) for item in value]
    if hasattr(value, "ndarray") and hasattr(value, "shm"):
        blocks.append(value.shm)
        array = value.ndarray()
        array.flags.writeable = False
        return array
    return value


def _release(blocks: list[Any]) -> None:
    """Close a task's blocks; arrays that a reference cycle still holds are let go of first."""
    for block in blocks:
        try:
            block.close()
        except BufferError:
            gc.collect()
            try:
                block.close()
            except BufferError as error:
                print(f"a job has kept an array of its client's memory ({error})", file=sys.stderr)


def _sendable(value: Any) -> Any:
    """Return a result as Appose can send it: arrays in shared memory, numbers that JSON knows."""
    if isinstance(value, np.ndarray):
        return _shared(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _sendable(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_sendable(item) for item in value]
    raise TypeError(f"a job returned something that cannot be sent: {type(value).__name__}")


def _shared(array: NDArray[Any]) -> Any:
    """Return a copy of an array in shared memory, for the client to free."""
    shared = share(array)
    _handed_over.append(shared.shm.name)
    if sys.platform == "win32":
        _kept_open.append(shared.shm)
    else:
        shared.shm.close()  # the block stays, under its name
    return shared


def share(array: NDArray[Any]) -> Any:
    """Return a copy of an array as Appose's NDArray, in a new block of shared memory.

    Raises
    ------
    LinceiError
        When the array is empty, or there is not enough shared memory.
    """
    from appose import NDArray as SharedArray

    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif" or array.size == 0:
        raise LinceiError(f"an array of shape {array.shape} and type {array.dtype} cannot be handed over")
    memory = Path("/dev/shm")
    if memory.is_dir():
        import shutil

        # Linux gives out more than there is, and ends the process that writes to it.
        free = shutil.disk_usage(memory).free
        if array.nbytes > free:
            raise LinceiError(
                f"there is not enough shared memory: {array.nbytes / 1e6:.0f} MB are needed, and "
                f"{free / 1e6:.0f} MB are free",
                str(memory),
                "Use a smaller region, close other programs, or ask for a larger /dev/shm.",
            )
    shared = SharedArray(array.dtype.name, list(array.shape))
    shared.ndarray()[...] = array
    return shared


# The process


def _take_over() -> None:
    """Set up the process of an Appose worker; does nothing in any other."""
    module = _appose_worker()
    if module is None:
        return
    answers = _keep_protocol()
    lock = threading.Lock()

    def answer(*parts: object, file: Any = None, flush: bool = False, **_: Any) -> None:
        del flush
        if file is not None:
            print(*parts, file=file, flush=True)
            return
        # In one piece: tasks answer from several threads.
        with lock:
            answers.write(" ".join(map(str, parts)) + "\n")
            answers.flush()

    # Appose answers with `print`, which would go where everything goes that libraries print.
    module.print = answer
    _listen_for_warnings()
    watch = threading.Thread(target=_watch, args=(answers.fileno(),), name="lincei-client-watch", daemon=True)
    watch.start()


def _appose_worker() -> Any:
    """Return Appose's module that runs this process; None when this is no worker."""
    message = sys.modules.get("appose.util.message")
    if not getattr(message, "_worker_mode", False):
        return None
    for name in ("appose.python_worker", "__main__"):
        module = sys.modules.get(name)
        if hasattr(module, "Worker") and hasattr(module, "Task"):
            return module
    return None


def _keep_protocol() -> Any:
    """Move the protocol's pipes away from the standard streams and return the one for answers.

    What libraries print, from C too, then goes to the error stream, and processes that a job starts inherit
    neither pipe.
    """
    requests, answers = os.dup(0), os.dup(1)
    encoding_in, encoding_out = sys.stdin.encoding, sys.stdout.encoding
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdin = open(requests, encoding=encoding_in)  # noqa: SIM115, PTH123 - open as long as the process
    sys.stdout = sys.stderr
    return open(answers, "w", encoding=encoding_out, newline="\n")  # noqa: PTH123


def _watch(answers: int) -> None:
    """Wait until the client has died, then end the process."""
    gone = _client_watch(answers)
    while not gone(_WATCH_EVERY_S):
        pass
    _client_gone.set()
    began_s = time.monotonic()
    while True:
        with _running_lock:
            grace_s = max((running.grace_s for running in _running.values()), default=0.0)
        if time.monotonic() - began_s >= grace_s:
            break
        time.sleep(0.02)
    _remove_blocks()
    os._exit(1)  # threads of libraries must not keep it alive


def _client_watch(answers: int) -> Callable[[float], bool]:
    """Return a function that waits so many seconds and tells whether the client has died."""
    parent = os.getppid()
    if sys.platform == "win32":
        import _winapi

        synchronize = 0x0010_0000
        handle = _winapi.OpenProcess(synchronize, False, parent)
        return lambda wait_s: _winapi.WaitForSingleObject(handle, round(1000 * wait_s)) == 0
    import select

    # A pipe that nobody reads any more tells at once, also where a launcher stands between client and worker.
    poll = select.poll()
    poll.register(answers, 0)

    def gone(wait_s: float) -> bool:
        return bool(poll.poll(1000 * wait_s)) or os.getppid() != parent

    return gone


def _remove_blocks() -> None:
    """Remove the shared memory of a client that has died: what it sent, and what it had not fetched."""
    from multiprocessing import shared_memory

    with _running_lock:
        names = [block.name for running in _running.values() for block in running.blocks]
    for name in [*names, *_handed_over]:
        try:
            shared_memory.SharedMemory(name=name).unlink()
        except OSError:
            continue


_take_over()
