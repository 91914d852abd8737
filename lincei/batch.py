"""Many inputs, one job: progress over all of them, failures collected, one summary.

A failure never loses good output: what is done stays, the other inputs go on, and the failures are
listed at the end. Only a full disk and the user stop a batch.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from lincei.errors import CancelledError, LinceiError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ItemIn = TypeVar("ItemIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)

# One item's share of the combined progress, so that a job's own progress shows within it.
STEPS_PER_ITEM = 1000


class Job(Protocol[ItemIn, ResultOut]):
    """What `run_batch` calls for each item."""

    def __call__(
        self, item: ItemIn, /, *, progress: ProgressCallback | None, cancelled: CancelCheck | None
    ) -> ResultOut:
        """Do the work for ``item`` and return its result."""
        ...


@dataclass(frozen=True)
class Failure:
    """An item that could not be done: its description and what the user can do about it."""

    item: str
    error: LinceiError

    def sentence(self) -> str:
        """Return the error's sentence; it begins with the item unless the error names it itself."""
        text = str(self.error)
        return text if self.item in text else f"{self.item}: {text}"


@dataclass(frozen=True)
class BatchSummary(Generic[ResultT]):
    """What became of a batch.

    Parameters
    ----------
    done : tuple
        The job's result for each item that was done, in the order of the items.
    failures : tuple of Failure
        The items that failed, in the order of the items.
    not_started : tuple of str
        Descriptions of the items that were not done because the batch was stopped.
    stopped_by : {"", "user", "full disk"}
        Why it was stopped; empty when it ran to its end.
    notes : tuple of str
        Sentences of the job's own that belong to the outcome.
    """

    done: tuple[ResultT, ...]
    failures: tuple[Failure, ...] = ()
    not_started: tuple[str, ...] = ()
    stopped_by: Literal["", "user", "full disk"] = ""
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 when all was done, 1 when something failed, 130 when the user stopped it."""
        if self.stopped_by == "user":
            return 130
        return 1 if self.failures or self.not_started else 0

    def sentence(self) -> str:
        """Return the outcome in words, with one line for each failure and each note."""
        total = len(self.done) + len(self.failures) + len(self.not_started)
        if not self.failures and not self.stopped_by:
            return "\n".join([f"{_count(total)} done.", *self.notes])
        parts = [f"{len(self.done)} of {_count(total)} done"]
        if self.failures:
            parts.append(f"{len(self.failures)} failed")
        if self.not_started:
            because = "you stopped it" if self.stopped_by == "user" else "the disk is full"
            parts.append(f"{len(self.not_started)} not done because {because}")
        lines = [", ".join(parts) + (":" if self.failures else ".")]
        lines += [f"  {failure.sentence()}" for failure in self.failures]
        return "\n".join([*lines, *self.notes])


def run_batch(
    items: Sequence[ItemT],
    job: Job[ItemT, ResultT],
    *,
    describe: Callable[[ItemT], str] = str,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> BatchSummary[ResultT]:
    """Run ``job`` on every item, one after the other.

    Parameters
    ----------
    items : sequence
        What to work on.
    job : callable
        Called as ``job(item, progress=..., cancelled=...)``; its return value is kept in the summary.
    describe : callable
        Names an item for the user (a file name, say).
    progress : callable, optional
        Receives `Progress` over the whole batch. With one item, the job's own reports pass through.
    cancelled : callable, optional
        Checked before each item and given to the job.

    Returns
    -------
    BatchSummary
        Also when the user stopped the batch: what was done by then is good.

    Raises
    ------
    Exception
        Whatever the job raises that is no fault of its input (a programming error) is not caught.
    """
    done: list[ResultT] = []
    failures: list[Failure] = []
    stopped_by: Literal["", "user", "full disk"] = ""
    index = 0
    for index, item in enumerate(items):
        if cancelled is not None and cancelled():
            stopped_by = "user"
            break
        name = describe(item)
        inner = progress
        if progress is not None and len(items) > 1:
            inner = _within(progress, name, index, len(items))
        try:
            done.append(job(item, progress=inner, cancelled=cancelled))
        except CancelledError:
            stopped_by = "user"
            break
        except Exception as error:
            readable = readable_error(error, name)
            if readable is None:
                raise
            failures.append(Failure(name, readable))
            if is_disk_full(error):
                stopped_by = "full disk"
                index += 1
                break
    left = items[index:] if stopped_by else ()
    if progress is not None and len(items) > 1 and not stopped_by:
        total = len(items) * STEPS_PER_ITEM
        report(progress, Progress(f"{len(items)} of {len(items)}", total, total))
    return BatchSummary(tuple(done), tuple(failures), tuple(describe(item) for item in left), stopped_by)


def readable_error(error: BaseException, where: str = "") -> LinceiError | None:
    """Return ``error`` as something a user can act on, or None when it is a fault of the program.

    Parameters
    ----------
    error : BaseException
        A `LinceiError` is returned as it is; operating-system and memory errors are worded.
    where : str, optional
        Names the input, for an error that does not name a file itself.
    """
    if isinstance(error, LinceiError):
        return error
    if isinstance(error, MemoryError):
        return LinceiError(
            "there is not enough memory",
            where,
            "Close other programs, or use smaller tiles or a smaller region of the image.",
        )
    if not isinstance(error, OSError):
        return None
    place = str(error.filename) if error.filename is not None else where
    if is_disk_full(error):
        return LinceiError("there is no space left on the disk", place, "Make room or write to another disk.")
    if isinstance(error, PermissionError):
        return LinceiError(
            "there is no permission to read or write it",
            place,
            "Close it in other programs, change its permissions, or choose another folder.",
        )
    if isinstance(error, FileNotFoundError):
        return LinceiError("there is no such file or folder", place, "Check the name.")
    if isinstance(error, IsADirectoryError):
        return LinceiError("this is a folder, where a file is needed", place, "Name a file.")
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return LinceiError("there is a file, where a folder is needed", place, "Choose another name.")
    return LinceiError(
        f"the computer could not read or write it ({error.strerror or error})",
        place,
        "Check the disk and the connection to it, then try again.",
    )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether ``error``, or what led to it, says that no space is left on the disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and (
            seen.errno in (errno.ENOSPC, errno.EDQUOT) or getattr(seen, "winerror", None) == 112
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _within(progress: ProgressCallback, name: str, index: int, count: int) -> ProgressCallback:
    """Return a callback that places one item's progress within the whole batch's."""

    def callback(update: Progress) -> None:
        share = min(update.done / update.total, 1.0) if update.total > 0 else 0.0
        progress(
            Progress(
                f"{name} ({index + 1} of {count}), {update.stage}",
                index * STEPS_PER_ITEM + int(share * STEPS_PER_ITEM),
                count * STEPS_PER_ITEM,
                update.message,
                update.metrics,
                update.preview,
            )
        )

    return callback


def _count(number: int) -> str:
    """Return the number of inputs in words."""
    return "1 input" if number == 1 else f"{number} inputs"
