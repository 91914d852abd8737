"""Training from files: what the user typed, for the card, and what a stop leaves behind."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insilico.options import TrainOptions
from insilico.pair_files import TrainingPair
from insilico.training import train
from lincei.errors import CancelledError, LinceiWarning
from lincei.progress import CancelCheck, ProgressCallback
from lincei.training import TrainingStoppedError

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
    command = "lincei " + " ".join(_quoted(word) for word in sys.argv[1:] if word != "--resume")
    try:
        return train(pairs, out, options, command=command, progress=progress, cancelled=cancelled)
    except TrainingStoppedError as stopped:
        warnings.warn(
            f"training was stopped and its state kept in {stopped.state_path.parent}; give the same command "
            "with --resume to go on.",
            LinceiWarning,
            stacklevel=2,
        )
        raise CancelledError from stopped


def _quoted(word: str) -> str:
    """Quote a word of the command, with the data folder by its variable: the card is read elsewhere."""
    data = os.environ.get("LINCEI_DATA", "")
    if data and data in word:
        return '"' + word.replace(data, "$LINCEI_DATA") + '"'
    return shlex.quote(word)
