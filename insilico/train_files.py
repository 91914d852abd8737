"""Training from files: what the user typed, for the card, and what a stop leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insilico.options import TrainOptions
from insilico.pair_files import TrainingPair
from insilico.training import train
from lincei.progress import CancelCheck, ProgressCallback
from lincei.training import kept_when_stopped, typed_command

if TYPE_CHECKING:
    from lincei.model import Model


def train_files(
    pairs: Sequence[TrainingPair],
    out: str | Path,
    options: TrainOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Model:
    """Train from pairs that were found in files (`insilico.pair_files`).

    Parameters
    ----------
    pairs : sequence of TrainingPair
        What to learn from.
    out : str or Path
        Folder of the model.
    options : TrainOptions
        The options.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Raises
    ------
    CancelledError
        When it was stopped; the state is kept.
    """
    with kept_when_stopped():
        return train(pairs, out, options, command=typed_command(), progress=progress, cancelled=cancelled)
