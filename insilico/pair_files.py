"""Pairs of transmitted-light and stained images from files: by patterns, or from a list of sets."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insilico.label_curve import CURVES
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import MODALITIES, Image
from lincei.pattern import InputGroup, find_inputs, find_isl, pair
from lincei.set_list import read_set_list, with_variables

ISL_PRESET = "isl:"
LABEL_SCALINGS = ("image", "group", "all")


@dataclass(frozen=True)
class TrainingPair:
    """One field: its transmitted-light image and its stained images, pixel on pixel.

    Parameters
    ----------
    image : Image
        Transmitted light; any number of z planes.
    labels : mapping of str to Image
        Stained images by the label's name. A stack is projected to its maximum. A label that other pairs
        have may be missing here.
    group : str
        Pairs of one group (a strain, a slide, an experiment) stay together when train, tune and test are
        split; empty where each field may stand alone.
    use : {"", "tune", "test"}
        What it is kept for; left to the split where empty.
    set_name : str
        The set it is from; sets are trained on equally often, however large they are.
    share : float
        How often its set is trained on beside one of share 1.
    label_scaling : {"image", "group", "all"}
        Whether each stained image is scaled by its own percentiles, or all of a label and group (or set)
        together.
    label_curve : {"linear", "asinh"}
        The curve of the labels' scale, see `insilico.label_curve`.
    """

    image: Image
    labels: Mapping[str, Image]
    group: str = ""
    use: str = ""
    set_name: str = ""
    label_scaling: str = "image"
    label_curve: str = "linear"
    share: float = 1.0


@dataclass(frozen=True)
class FoundPair:
    """The files of a pair, not opened yet: in a batch, one that cannot be opened stops no other.

    Parameters
    ----------
    input : InputGroup
        Of the transmitted-light image.
    labels : mapping of str to InputGroup
        Of the stained images, by the label's name.
    group : str
        As in `TrainingPair`.
    label_scaling : {"image", "group", "all"}
        As in `TrainingPair`.
    """

    input: InputGroup
    labels: Mapping[str, InputGroup]
    group: str = ""
    label_scaling: str = "image"

    def open(self) -> TrainingPair:
        """Open the images; their pixels are read when they are asked for."""
        labels = {name: group.open() for name, group in self.labels.items()}
        return TrainingPair(self.input.open(), labels, self.group, label_scaling=self.label_scaling)


def find_pairs(
    inputs: str, labels: Sequence[str], *, split_by: str = "", label_scaling: str = "image"
) -> list[FoundPair]:
    """Find the images that belong together and say what did not pair; arguments and errors as `open_pairs`.

    Returns
    -------
    list of FoundPair
        At least one.
    """
    if label_scaling not in LABEL_SCALINGS:
        raise UsageError(
            f"--label-scaling is {label_scaling!r}", "", f"Choose from: {', '.join(LABEL_SCALINGS)}."
        )
    found = _isl_pairs(inputs, labels) if inputs.startswith(ISL_PRESET) else _pattern_pairs(inputs, labels)
    if split_by and not all(split_by in item.input.captures for item in found):
        there = sorted({name for item in found for name in item.input.captures if not name.startswith("*")})
        raise UsageError(
            f"the input's pattern has no placeholder {{{split_by}}} to split by",
            "",
            f"There are: {', '.join(there)}." if there else "Write {name} where the strain or slide stands.",
        )
    return [
        dataclasses.replace(
            item, group=item.input.captures[split_by] if split_by else "", label_scaling=label_scaling
        )
        for item in found
    ]


def open_pairs(
    inputs: str,
    labels: Sequence[str],
    *,
    split_by: str = "",
    tune_on: Sequence[str] = (),
    test_on: Sequence[str] = (),
    label_scaling: str = "image",
    label_curve: str = "linear",
) -> list[TrainingPair]:
    """Find the images that belong together, say what did not pair, and open them lazily.

    Parameters
    ----------
    inputs : str
        Pattern of the transmitted-light images, or ``isl:FOLDER`` for the published data's file names,
        which name the labels themselves.
    labels : sequence of str
        ``NAME=PATTERN`` for each label; with ``isl:`` the names of the labels wanted, or none for all.
    split_by : str, optional
        Placeholder of the pattern (such as ``name`` of ``{name}``) whose values are kept together.
    tune_on, test_on : sequence of str, optional
        Values of that placeholder, or names of images, that are kept to tune and to test.
    label_scaling : {"image", "group", "all"}
        As in `TrainingPair`.
    label_curve : {"linear", "asinh"}
        As in `TrainingPair`.

    Raises
    ------
    LinceiError
        When nothing pairs; it lists what was found.
    UsageError
        When a label is not of the form NAME=PATTERN, or nothing has the value that is kept for the test.
    """
    if label_curve not in CURVES:
        raise UsageError(f"--label-curve is {label_curve!r}", "", f"Choose from: {', '.join(CURVES)}.")
    found = find_pairs(inputs, labels, split_by=split_by, label_scaling=label_scaling)
    pairs = _opened(found, {"tune": tune_on, "test": test_on})
    return [dataclasses.replace(item, label_curve=label_curve) for item in pairs]


def open_sets(path: str | Path) -> list[TrainingPair]:
    """Open the sets that a TOML file lists: several experiments from which one network learns.

    Each ``[[set]]`` has a ``name``, an ``input`` pattern, a table ``label`` of names and patterns, and may
    state ``modality``, ``pixel_size_um``, ``z_step_um``, ``split_by``, ``tune_on``, ``test_on``,
    ``label_scaling`` (``"image"``, ``"group"`` or ``"all"``), ``label_curve`` (``"linear"`` or
    ``"asinh"``) and ``share`` (how often it is trained on beside a set of share 1). Variables such as
    ``$LINCEI_DATA`` in patterns are filled in; a relative pattern starts in the folder of the file. A label
    that a set lacks is left out of what is learned there.

    Raises
    ------
    LinceiError
        When the file cannot be understood; it names the set and the entry.
    """
    file = Path(path).expanduser()
    content = read_set_list(file, page="docs/train.md")
    pairs = []
    names: set[str] = set()
    for number, entry in enumerate(content["set"], start=1):
        where = f"{file}, set {entry.get('name', number)!r}"
        checked = _checked_set(entry, where)
        if checked["name"] in names:
            raise LinceiError("two sets have this name", where, "Give each set a name of its own.")
        names.add(checked["name"])
        pairs += _pairs_of_set(checked, file.parent, where)
    return pairs


_SET_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "input": str,
    "label": dict,
    "modality": str,
    "pixel_size_um": (int, float),
    "z_step_um": (int, float),
    "split_by": str,
    "tune_on": list,
    "test_on": list,
    "label_scaling": str,
    "label_curve": str,
    "share": (int, float),
}


def _checked_set(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key in ("name", "input", "label"):
        if key not in entry:
            raise LinceiError(f"the entry {key!r} is missing", where, "Add it; see docs/train.md.")
    for key, value in entry.items():
        if key not in _SET_KEYS:
            raise LinceiError(f"there is no entry {key!r}", where, f"Choose from: {', '.join(_SET_KEYS)}.")
        if not isinstance(value, _SET_KEYS[key]):
            raise LinceiError(f"the entry {key!r} is {value!r}", where, "Correct it; see docs/train.md.")
    if not entry.get("share", 1) > 0:
        raise LinceiError(f"share is {entry['share']!r}", where, "Give a number above 0.")
    for key, allowed in (
        ("modality", MODALITIES),
        ("label_scaling", LABEL_SCALINGS),
        ("label_curve", CURVES),
    ):
        if key in entry and entry[key] not in allowed:
            raise LinceiError(f"{key} is {entry[key]!r}", where, f"Choose from: {', '.join(allowed)}.")
    return dict(entry)


def _pairs_of_set(entry: Mapping[str, Any], folder: Path, where: str) -> list[TrainingPair]:
    def pattern(text: str) -> str:
        filled = with_variables(text, where)
        prefix = ISL_PRESET if filled.startswith(ISL_PRESET) else ""
        # What a variable says is the user's own path and starts where the user is.
        start = Path() if text.removeprefix(ISL_PRESET).startswith("$") else folder
        return prefix + str(start / filled.removeprefix(prefix))

    labels = [f"{name}={pattern(text)}" for name, text in entry["label"].items()]
    pairs = open_pairs(
        pattern(entry["input"]),
        labels,
        split_by=entry.get("split_by", ""),
        tune_on=entry.get("tune_on", ()),
        test_on=entry.get("test_on", ()),
        label_scaling=entry.get("label_scaling", "image"),
        label_curve=entry.get("label_curve", "linear"),
    )
    stated = {key: entry[key] for key in ("modality", "pixel_size_um", "z_step_um") if key in entry}
    return [
        dataclasses.replace(
            item,
            image=item.image.with_(**stated) if stated else item.image,
            set_name=entry["name"],
            share=float(entry.get("share", 1)),
        )
        for item in pairs
    ]


def _opened(found: Sequence[FoundPair], kept: Mapping[str, Sequence[str]]) -> list[TrainingPair]:
    """Open pairs, and put those aside that are named to tune or to test on."""
    uses = {value: use for use, values in kept.items() for value in values}
    pairs = []
    used: set[str] = set()
    for item in found:
        named = [name for name in (item.group, item.input.stem) if name in uses]
        used.update(named)
        pairs.append(dataclasses.replace(item.open(), use=uses[named[0]] if named else ""))
    for value in uses:
        if value not in used:
            there = sorted({pair.group or pair.image.name for pair in pairs})
            raise UsageError(
                f"nothing is called {value!r}, which is to be kept to {uses[value]} on",
                "",
                f"There are: {', '.join(there[:12])}{', ...' if len(there) > 12 else ''}.",
            )
    return pairs


def _pattern_pairs(inputs: str, labels: Sequence[str]) -> list[FoundPair]:
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
    return [FoundPair(item.input, item.labels) for item in pairing.pairs]


def _isl_pairs(inputs: str, labels: Sequence[str]) -> list[FoundPair]:
    pairs = []
    found: set[str] = set()
    for item in find_isl(inputs.removeprefix(ISL_PRESET)):
        found.update(item.labels)
        wanted = {name: group for name, group in item.labels.items() if not labels or name in labels}
        if wanted:
            pairs.append(FoundPair(item.input, wanted))
    if not pairs:
        raise LinceiError(
            "no field has the labels that are asked for",
            inputs,
            f"There are: {', '.join(sorted(found)) or 'none'}.",
        )
    return pairs
