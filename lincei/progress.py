"""What a running job tells its caller, and how the caller stops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lincei.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """One report of a running job.

    Parameters
    ----------
    stage : str
        What is being done, in the present participle: "labeling", "training".
    done, total : int
        Units of work done and to do; ``total`` is 0 while it is unknown.
    message : str
        A line for the user; empty when there is nothing to say.
    metrics : mapping of str to float
        Figures that change while the job runs, such as the loss.
    preview : ndarray or None
        A small picture of the result so far.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    preview: Any = None


ProgressCallback = Callable[[Progress], None]
CancelCheck = Callable[[], bool]


def report(progress: ProgressCallback | None, update: Progress) -> None:
    """Send ``update`` to the caller, when it listens."""
    if progress is not None:
        progress(update)


def stop_if_cancelled(cancelled: CancelCheck | None) -> None:
    """Raise `CancelledError` when the caller asked to stop."""
    if cancelled is not None and cancelled():
        raise CancelledError
