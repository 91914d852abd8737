from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from lincei.batch import BatchSummary, Failure, is_disk_full, readable_error, run_batch
from lincei.errors import CancelledError, LinceiError, UsageError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report


def double(item: int, *, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> int:
    for done in range(3):
        report(progress, Progress("doubling", done, 2))
    return 2 * item


def failing_on(*bad: int, error: BaseException) -> Any:
    def job(item: int, *, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> int:
        if item in bad:
            raise error
        return item

    return job


def test_everything_is_done_in_order() -> None:
    summary = run_batch([1, 2, 3], double)
    assert summary == BatchSummary((2, 4, 6))
    assert summary.exit_code == 0
    assert summary.sentence() == "3 inputs done."


def test_a_failure_leaves_the_others_done_and_is_listed() -> None:
    summary = run_batch(
        [1, 2, 3],
        failing_on(2, error=LinceiError("the image is constant", "", "Check the lamp.")),
        describe=lambda item: f"{item}.tif",
    )
    assert summary.done == (1, 3)
    assert summary.exit_code == 1
    assert summary.sentence() == (
        "2 of 3 inputs done, 1 failed:\n  2.tif: the image is constant. Check the lamp."
    )


def test_an_item_is_not_named_twice() -> None:
    assert Failure("a.tif", LinceiError("it is empty", "in/a.tif")).sentence() == "in/a.tif: it is empty."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (PermissionError(errno.EACCES, "denied", "out/a.tif"), "no permission"),
        (FileNotFoundError(errno.ENOENT, "gone", "a.tif"), "no such file"),
        (IsADirectoryError(errno.EISDIR, "folder", "a.tif"), "a folder, where a file is needed"),
        (FileExistsError(errno.EEXIST, "there", "out"), "a file, where a folder is needed"),
        (OSError(errno.EIO, "Input/output error", "a.tif"), "Input/output error"),
    ],
)
def test_errors_of_the_computer_become_sentences(error: Exception, words: str) -> None:
    [failure] = run_batch([1], failing_on(1, error=error)).failures
    assert words in str(failure.error)
    assert getattr(error, "filename", None) is None or error.filename in str(failure.error)  # type: ignore[attr-defined]


def test_a_fault_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_batch([1], failing_on(1, error=ZeroDivisionError()))
    assert readable_error(ZeroDivisionError()) is None


def test_an_error_that_is_worded_already_keeps_its_words() -> None:
    error = UsageError("--tile is 3")
    assert readable_error(error, "a.tif") is error


def full_disk_behind_words() -> LinceiError:
    error = LinceiError("it could not be saved", "out/b.tif")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device", "out/b.tif"), full_disk_behind_words()]
)
def test_a_full_disk_stops_the_batch_with_what_was_done(error: Exception) -> None:
    assert is_disk_full(error)
    summary = run_batch(["a", "b", "c", "d"], failing_on("b", error=error))  # type: ignore[arg-type]
    assert summary.done == ("a",)
    assert [failure.item for failure in summary.failures] == ["b"]
    assert summary.not_started == ("c", "d")
    assert summary.stopped_by == "full disk"
    assert summary.exit_code == 1
    assert "1 of 4 inputs done, 1 failed, 2 not done because the disk is full" in summary.sentence()


def test_when_the_user_stops_what_was_done_is_kept() -> None:
    summary = run_batch([1, 2, 3], failing_on(2, error=CancelledError()))
    assert summary == BatchSummary((1,), (), ("2", "3"), "user")
    assert summary.exit_code == 130
    assert summary.sentence() == "1 of 3 inputs done, 2 not done because you stopped it."


def test_a_stop_between_items_starts_no_further_one() -> None:
    started: list[int] = []

    def job(item: int, *, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> None:
        started.append(item)

    summary = run_batch([1, 2], job, cancelled=lambda: len(started) == 1)
    assert started == [1]
    assert summary.not_started == ("2",)


def test_progress_runs_from_nothing_to_all_over_the_items() -> None:
    heard: list[Progress] = []
    run_batch([1, 2, 3, 4], double, describe=lambda item: f"{item}.tif", progress=heard.append)
    shares = [update.done / update.total for update in heard]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[4] == pytest.approx(1 / 4 + 1 / 8)
    assert shares[-1] == 1
    assert heard[4].stage == "2.tif (2 of 4), doubling"


def test_the_progress_of_a_single_item_passes_through() -> None:
    heard: list[Progress] = []
    run_batch([1], double, progress=heard.append)
    assert heard == [Progress("doubling", done, 2) for done in range(3)]


def test_what_was_written_before_a_failure_stays(tmp_path: Path) -> None:
    def job(item: str, *, progress: ProgressCallback | None, cancelled: CancelCheck | None) -> Path:
        if item == "bad":
            raise LinceiError("it is empty", item)
        path = tmp_path / item
        path.write_text(item)
        return path

    summary = run_batch(["one", "bad", "two"], job)
    assert [path.read_text() for path in summary.done] == ["one", "two"]
