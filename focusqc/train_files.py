"""Training from files: finds the sharp images, names their groups, and says what a stop leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from focusqc.options import TrainFocusOptions
from focusqc.training import train
from lincei.errors import LinceiError, UsageError
from lincei.pattern import InputGroup, find_inputs, name_and_pattern
from lincei.progress import CancelCheck, ProgressCallback
from lincei.training import kept_when_stopped, typed_command

if TYPE_CHECKING:
    from lincei.image import Image
    from lincei.model import Model


def train_files(
    inputs: Sequence[str],
    out: str | Path,
    options: TrainFocusOptions,
    *,
    split_by: str = "",
    measure_on: Sequence[str] = (),
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Model:
    """Train from sharp images in files.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or patterns (see `lincei.pattern`), each optionally with a name before it:
        ``"cells=A/*.tif"``. Each is a set, and all sets count alike.
    out : str or Path
        Folder of the model.
    options : TrainFocusOptions
        The options.
    split_by : str
        A placeholder (``"well"``, ``"name"``): images of which it has one value are held out together. Of
        sets whose pattern does not hold it, each image stands for itself.
    measure_on : sequence of str
        ``"NAME=PATTERN"`` of sharp images that are only measured on.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Raises
    ------
    UsageError
        When nothing is given, a name is given twice, or no pattern holds the placeholder.
    LinceiError
        As `focusqc.train` does.
    CancelledError
        When it was stopped; the state is kept.
    """
    if not inputs:
        raise UsageError("no sharp images are given", "", "Add --input PATTERN.")
    for text in measure_on:
        if not name_and_pattern(text)[0]:
            raise UsageError(
                f"--measure-on is {text!r}, without a name", "", "Give it one for the card: NAME=PATTERN."
            )
    sets, groups = _opened(inputs, split_by, "--input")
    measured, _ = _opened(measure_on, "", "--measure-on")
    with kept_when_stopped():
        return train(
            sets,
            out,
            options,
            measure_on=measured,
            groups=groups,
            command=typed_command(),
            progress=progress,
            cancelled=cancelled,
        )


def _opened(
    inputs: Sequence[str], split_by: str, flag: str
) -> tuple[Mapping[str, list[Image]], dict[str, dict[str, str]]]:
    """Open sets of images; return them by name, and for each the groups of its images."""
    sets: dict[str, list[Image]] = {}
    groups: dict[str, dict[str, str]] = {}
    for number, text in enumerate(inputs):
        name, pattern = name_and_pattern(text)
        if not name:
            name = f"set {number + 1}" if len(inputs) > 1 else ""
        if name in sets:
            raise UsageError(
                f"{flag} names two sets {name!r}", "", "Give each a name of its own: NAME=PATTERN."
            )
        found = find_inputs([pattern])
        sets[name] = [_open(group) for group in found]
        groups[name] = {
            image.name: str(group.captures[split_by])
            for group, image in zip(found, sets[name], strict=True)
            if split_by in group.captures
        }
    if split_by and not any(groups.values()):
        raise UsageError(
            f"--split-by is {split_by!r}, which no pattern of {flag} holds",
            "",
            f"Write {{{split_by}}} where the value stands in the names, such as plate_{{{split_by}}}_*.tif.",
        )
    return sets, groups


def _open(group: InputGroup) -> Image:
    """Open an input; a damaged one is named."""
    try:
        return group.open()
    except LinceiError as error:
        raise LinceiError(
            error.what, error.where or group.source, error.what_to_do or "Leave it out of --input."
        ) from error
