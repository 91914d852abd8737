"""The worker process, with both ends real: a process that Appose starts, and jobs of a third party's tool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("appose", reason="Appose is not installed: pip install 'lincei[napari]'")

import lincei
from lincei.errors import CancelledError, LinceiError
from lincei.progress import Progress
from lincei.worker_process import WorkerProcess

# Long beside anything that happens here, so that only a hang is one.
SOON_S = 120.0

TOOL = """
COMMANDS = {}
JOBS = {name: f"worker_test_jobs:{name}" for name in
        ("double", "chatter", "wait", "fail", "fault", "leave", "warn", "draw", "early", "stubborn")}


def command(name):
    raise AssertionError(name)
"""

JOBS = """
import os, subprocess, sys, threading, time, warnings
from pathlib import Path

import numpy as np

from lincei.errors import LinceiError, LinceiWarning
from lincei.progress import Progress, stop_if_cancelled
from lincei.worker import needed


def begun(progress):
    progress(Progress("working", 0, 0, f"pid {os.getpid()}"))


def double(data, options, *, progress, cancelled):
    (array,) = needed(data, "array")
    return {"array": array * 2, "writable": bool(array.flags.writeable), "scale": np.float32(0.5),
            "nested": {"path": Path("a"), "list": (1, None, float("nan"))}}


def chatter(data, options, *, progress, cancelled):
    print("a library greets")
    sys.stdout.write("and greets {")
    os.write(1, b"from C, without an end of line")
    subprocess.run([sys.executable, "-c", "print(input())"], check=False)
    return {"said": True}


def wait(data, options, *, progress, cancelled):
    begun(progress)
    while True:
        if cancelled():
            time.sleep(float(data.get("stops_after_s", 0)))
            if data.get("trace"):
                Path(data["trace"]).write_text("stopped", "utf-8")
        stop_if_cancelled(cancelled)
        time.sleep(0.01)


wait.grace_s = 20.0


def stubborn(data, options, *, progress, cancelled):
    begun(progress)
    while True:
        time.sleep(1)


def fail(data, options, *, progress, cancelled):
    raise LinceiError("the image is dark", "a.tif", "Switch the lamp on.")


def fault(data, options, *, progress, cancelled):
    kept = data["array"][1:]
    return kept / 0 + {}["missing"]


def leave(data, options, *, progress, cancelled):
    print("out of luck", file=sys.stderr, flush=True)
    os._exit(7)


def warn(data, options, *, progress, cancelled):
    warnings.warn(data["text"], LinceiWarning)
    # Until the other one has warned as well.
    while not Path(data["other"]).exists():
        Path(data["own"]).touch()
        time.sleep(0.01)
    Path(data["own"]).touch()
    warnings.warn(data["text"], LinceiWarning)
    warnings.warn("not for people")
    return {}


def draw(data, options, *, progress, cancelled):
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for loss in (1.0, float("nan"), 0.25):
        progress(Progress("drawing", 1, 3, metrics={"loss": loss}, preview=picture))
    for i in range(5000):
        progress(Progress("counting", i + 1, 5000))
    return {}


def early(data, options, *, progress, cancelled, finish):
    begun(progress)
    while not finish():
        stop_if_cancelled(cancelled)
        time.sleep(0.01)
    return {"kept": "what there was"}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tool of a third party as pip would install it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "worker_test_cli.py").write_text(TOOL, encoding="utf-8")
    (folder / "worker_test_jobs.py").write_text(JOBS, encoding="utf-8")
    information = folder / "worker_test-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: worker-test\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[lincei.tools]\nworker_test = worker_test_cli\n")
    return folder


def python_path(site: Path) -> str:
    return os.pathsep.join([str(site), str(Path(lincei.__file__).parents[1])])


def open_worker(site: Path) -> WorkerProcess:
    return WorkerProcess(environment={"PYTHONPATH": python_path(site)})


@pytest.fixture(scope="module")
def worker(site: Path) -> Iterator[WorkerProcess]:
    with open_worker(site) as opened:
        yield opened


class Heard:
    """Progress as it came, and a moment to wait for."""

    def __init__(self) -> None:
        self.updates: list[Progress] = []
        self._more = threading.Condition()

    def __call__(self, update: Progress) -> None:
        with self._more:
            self.updates.append(update)
            self._more.notify_all()

    def first(self, wanted: Callable[[Progress], bool] = lambda update: True) -> Progress:
        with self._more:
            assert self._more.wait_for(lambda: any(map(wanted, self.updates)), SOON_S)
            return next(filter(wanted, self.updates))


def blocks() -> set[str]:
    """Return the shared memory that there is now, in as far as this system shows it.

    That of other programs which run beside this one is left out: they make and free it as they like.
    """
    memory = Path("/dev/shm")
    found = {path.name for path in memory.glob("psm_*")} if memory.is_dir() else set()
    for process in Path("/proc").glob("[0-9]*") if found else ():
        try:
            maps = (process / "maps").read_text()
            mapped = {name for name in found if name in maps}
            if mapped and not is_ours(int(process.name)):
                found -= mapped
        except OSError:  # it has ended, or is another user's
            continue
    return found


def is_ours(process: int) -> bool:
    """Tell whether a process is this one or was started by it."""
    while process > 1 and process != os.getpid():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


def gone(process: int) -> bool:
    """Tell whether a process has ended, or waits only to be reaped by whoever has taken it over."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


# Values and errors


def test_arrays_go_through_shared_memory_and_none_of_it_is_left(worker):
    before = blocks()
    array = np.arange(12, dtype=">u2").reshape(3, 4)[:, ::2]
    result = worker.start("double", {"array": array, "unused": [array, {"b": array > 3}]}).wait(SOON_S)
    np.testing.assert_array_equal(result["array"], array * 2)
    assert result["array"].dtype == np.uint16
    assert result["writable"] is False
    assert result["scale"] == 0.5
    assert result["nested"] == {"path": "a", "list": [1, None, None]}
    assert blocks() <= before
    result["array"][:] = 0  # its own memory


def test_what_libraries_print_breaks_no_protocol(worker):
    for _ in range(3):
        assert worker.start("chatter").wait(SOON_S) == {"said": True}


def test_errors_come_back_in_their_three_parts(worker):
    job = worker.start("fail")
    with pytest.raises(LinceiError) as failed:
        job.wait(SOON_S)
    assert (failed.value.what, failed.value.where) == ("the image is dark", "a.tif")
    assert failed.value.what_to_do == "Switch the lamp on."
    assert job.log == ""
    assert job.is_done


@pytest.mark.parametrize(
    ("job", "data", "options", "sentence"),
    [
        ("dance", {}, {}, "there is no job 'dance'.*There are: .*double.*train"),
        ("double", {"picture": 1}, {}, "the job's data have no 'array'.*Given: picture"),
        ("train", {"out": "m"}, {"minutes": 1}, "there is no option 'minutes'"),
        ("train", {"out": "m"}, {"max_minutes": -1.0}, "--max-minutes is -1"),
        ("label", {}, {}, "the job's data have no 'image'"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(worker, job, data, options, sentence):
    with pytest.raises(LinceiError, match=sentence):
        worker.start(job, data, options).wait(SOON_S)


def test_a_fault_is_a_sentence_with_a_log_and_frees_the_memory(worker):
    before = blocks()
    job = worker.start("fault", {"array": np.ones(4)})
    with pytest.raises(LinceiError, match="did not foresee"):
        job.wait(SOON_S)
    assert "worker_test_jobs.py" in job.log
    assert blocks() <= before


def test_warnings_go_to_the_job_that_they_come_from(worker, tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    jobs = [
        worker.start("warn", {"text": f"beware of {own.name}", "own": own, "other": other})
        for own, other in (files, files[::-1])
    ]
    for job in jobs:
        job.wait(SOON_S)
    assert [job.warnings for job in jobs] == [("beware of a",), ("beware of b",)]


# Progress, cancel, finish


def test_progress_comes_with_metrics_and_previews_and_is_thinned_but_for_the_last(worker):
    heard = Heard()
    worker.start("draw", progress=heard).wait(SOON_S)
    drawn = [update for update in heard.updates if update.stage == "drawing"]
    np.testing.assert_equal([update.metrics["loss"] for update in drawn], [1.0, np.nan, 0.25])
    np.testing.assert_array_equal(drawn[0].preview, np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    counted = [update.done for update in heard.updates if update.stage == "counting"]
    assert counted[0] == 1
    assert counted[-1] == 5000
    assert len(counted) < 2500


def test_a_canceled_job_says_so_and_others_go_on(worker):
    heard, done = Heard(), threading.Event()
    job = worker.start("wait", progress=heard, on_done=lambda _: done.set())
    heard.first()
    assert worker.start("chatter").wait(SOON_S) == {"said": True}
    with pytest.raises(TimeoutError):
        job.wait(0.01)
    job.cancel()
    with pytest.raises(CancelledError):
        job.wait(SOON_S)
    assert done.wait(SOON_S)
    assert worker.start("chatter").wait(SOON_S) == {"said": True}


def test_a_job_canceled_before_it_began_is_canceled(worker):
    job = worker.start("wait")
    job.cancel()
    with pytest.raises(CancelledError):
        job.wait(SOON_S)


def test_a_job_that_is_asked_to_finish_keeps_what_it_has(worker):
    heard = Heard()
    job = worker.start("early", progress=heard)
    heard.first()
    job.finish()
    assert job.wait(SOON_S) == {"kept": "what there was"}


def test_a_listener_that_fails_cancels_the_job_and_its_error_is_raised(worker):
    def listen(update: Progress) -> None:
        raise ZeroDivisionError("the listener's own")

    with pytest.raises(ZeroDivisionError):
        worker.start("wait", progress=listen).wait(SOON_S)


# The process


def test_a_process_that_ends_in_a_job_is_a_sentence_and_the_next_job_gets_another(site):
    before = blocks()
    with open_worker(site) as own:
        with pytest.raises(LinceiError, match=r"ended in the middle of the job \(status 7\).*out of luck"):
            own.start("leave", {"array": np.ones(4)}).wait(SOON_S)
        heard = Heard()
        job = own.start("wait", progress=heard)
        os.kill(int(heard.first().message.removeprefix("pid ")), signal.SIGKILL)
        with pytest.raises(LinceiError, match=r"ended in the middle of the job \(signal 9\)"):
            job.wait(SOON_S)
        assert own.start("chatter").wait(SOON_S) == {"said": True}
    assert blocks() <= before


def test_closing_lets_jobs_stop_and_leaves_no_process_thread_or_memory(site, tmp_path):
    before, threads = blocks(), set(threading.enumerate())
    own, heard, trace = open_worker(site), Heard(), tmp_path / "trace"
    data = {"array": np.ones(5), "stops_after_s": 0.5, "trace": trace}
    job = own.start("wait", data, progress=heard)
    process = int(heard.first().message.removeprefix("pid "))
    own.close()
    assert job.is_done
    assert trace.exists()
    assert gone(process)
    assert blocks() <= before
    wait_until(lambda: set(threading.enumerate()) <= threads)
    with pytest.raises(LinceiError, match="was closed"):
        own.start("chatter")


def test_a_job_that_does_not_stop_is_ended_with_its_process(site):
    own, heard = open_worker(site), Heard()
    job = own.start("stubborn", progress=heard)
    process = int(heard.first().message.removeprefix("pid "))
    own.close(timeout_s=0.2)
    assert gone(process)
    with pytest.raises(LinceiError, match="ended in the middle"):
        job.wait(SOON_S)


CLIENT = """
import sys, threading
import numpy as np
from lincei.worker_process import WorkerProcess

worker, begun = WorkerProcess(), threading.Event()

def hear(update):
    print(update.message, flush=True)
    begun.set()

worker.start(sys.argv[1], {"array": np.ones(1000), "stops_after_s": 1.0, "trace": sys.argv[3]}, progress=hear)
assert begun.wait(120)
if sys.argv[2] == "stay":
    threading.Event().wait(600)
"""


def start_client(site: Path, job: str, end: str, trace: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a program that has a worker; return it and the worker's number."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, job, end, str(trace)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path(site)},
    )
    assert client.stdout is not None
    return client, int(client.stdout.readline().removeprefix("pid "))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
@pytest.mark.parametrize("job", ["wait", "stubborn"])
def test_a_worker_ends_with_its_killed_client_and_jobs_that_keep_state_may_do_so(site, tmp_path, job):
    before, trace = blocks(), tmp_path / "trace"
    client, process = start_client(site, job, "stay", trace)
    with client:
        client.kill()
        client.wait(SOON_S)
        wait_until(lambda: gone(process))
    assert trace.exists() is (job == "wait")
    wait_until(lambda: blocks() <= before)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux")
def test_a_program_that_ends_without_closing_its_worker_ends_and_takes_it_along(site, tmp_path):
    before = blocks()
    client, process = start_client(site, "wait", "leave", tmp_path / "trace")
    with client:
        assert client.wait(SOON_S) == 0
    wait_until(lambda: gone(process))
    assert (tmp_path / "trace").exists()
    assert blocks() <= before


# Another Python


def test_a_python_that_is_not_there_is_a_sentence(tmp_path):
    with (
        WorkerProcess(tmp_path / "nowhere" / "python") as own,
        pytest.raises(LinceiError, match=r"nowhere.*no such Python"),
    ):
        own.start("jobs").wait(SOON_S)


def test_another_version_of_lincei_is_a_sentence_that_names_both(tmp_path):
    other = tmp_path / "lincei"
    other.mkdir()
    (other / "__init__.py").write_text('__version__ = "9.8.7"\n', encoding="utf-8")
    with (
        WorkerProcess(environment={"PYTHONPATH": str(tmp_path)}) as own,
        pytest.raises(
            LinceiError, match=rf"has lincei 9\.8\.7, and this program is lincei {lincei.__version__}"
        ),
    ):
        own.start("jobs").wait(SOON_S)


def test_a_python_without_lincei_is_a_sentence(tmp_path):
    import appose

    # Nothing but Appose is found: -S leaves out the installed packages.
    program = tmp_path / "python"
    folder = tmp_path / "packages"
    folder.mkdir()
    package = Path(appose.__file__).parent
    for part in (package, *package.parent.glob("appose-*.dist-info")):
        (folder / part.name).symlink_to(part)
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys._base_executable}" -S "$@"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    with (
        WorkerProcess(program) as own,
        pytest.raises(LinceiError, match=rf"this Python has no lincei {lincei.__version__}"),
    ):
        own.start("jobs").wait(SOON_S)


def test_neither_end_imports_tensorflow_before_a_job_needs_it():
    code = (
        "import sys, lincei.worker, lincei.worker_process; "
        "bad = {'tensorflow', 'keras', 'openvino', 'insilico'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
