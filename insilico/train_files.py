"""Training from files: finds the pairs, says what did not pair, and trains."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insilico.options import TrainOptions
from insilico.training import TrainingPair, train
from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.pattern import find_inputs, find_isl, pair
from lincei.progress import CancelCheck, ProgressCallback
from lincei.training import TrainingStoppedError

if TYPE_CHECKING:
    from lincei.model import Model

ISL_PRESET = "isl:"


def train_files(
    inputs: str,
    labels: Sequence[str],
    out: str | Path,
    options: TrainOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Model:
    """Train from files.

    Parameters
    ----------
    inputs : str
        Pattern of the transmitted-light images, or ``isl:FOLDER`` for the published data's file names,
        which name the labels themselves.
    labels : sequence of str
        ``NAME=PATTERN`` for each label; with ``isl:`` the names of the labels wanted, or none for all.
    out : str or Path
        Folder of the model.
    options : TrainOptions
        The options.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Raises
    ------
    LinceiError
        When nothing pairs; it lists what was found.
    CancelledError
        When it was stopped; the state is kept.
    """
    pairs = _isl_pairs(inputs, labels) if inputs.startswith(ISL_PRESET) else _pattern_pairs(inputs, labels)
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


def _pattern_pairs(inputs: str, labels: Sequence[str]) -> list[TrainingPair]:
    patterns: dict[str, str] = {}
    for text in labels:
        name, equals, pattern = text.partition("=")
        if not (name and equals and pattern):
            raise UsageError(
                f"--label {text!r} is not of the form NAME=PATTERN", "", "Such as: DAPI=dapi_*.tif"
            )
        if name in patterns:
            raise UsageError(f"the label {name!r} is given twice", "", "Give each label one pattern.")
        patterns[name] = pattern
    if not patterns:
        raise UsageError("no label is given", "", "Add --label NAME=PATTERN.")
    pairing = pair(
        find_inputs([inputs]), {name: find_inputs([pattern]) for name, pattern in patterns.items()}
    )
    if not pairing.pairs:
        raise LinceiError(
            "no input has a label of its own", inputs, " ".join(pairing.unpaired[:6]) or "Check the patterns."
        )
    for sentence in pairing.unpaired:
        warnings.warn(sentence, LinceiWarning, stacklevel=2)
    return [
        TrainingPair(item.input.open(), {name: group.open() for name, group in item.labels.items()})
        for item in pairing.pairs
    ]


def _isl_pairs(inputs: str, labels: Sequence[str]) -> list[TrainingPair]:
    pairs = []
    found: set[str] = set()
    for item in find_isl(inputs.removeprefix(ISL_PRESET)):
        found.update(item.labels)
        wanted = {name: group for name, group in item.labels.items() if not labels or name in labels}
        if wanted:
            pairs.append(
                TrainingPair(item.input.open(), {name: group.open() for name, group in wanted.items()})
            )
    if not pairs:
        raise LinceiError(
            "no field has the labels that are asked for",
            inputs,
            f"There are: {', '.join(sorted(found)) or 'none'}.",
        )
    return pairs
