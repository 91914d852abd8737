"""Training from files: images with masks or outlines, snapshot bundles, or a list of several sets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.annotated import FINEST_UM, AnnotatedField, annotated_field
from arm_overlay.masks import mask_of
from arm_overlay.train_options import TrainTumorOptions
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image, full_range, open_image
from lincei.pattern import InputGroup, find_inputs, name_and_pattern, pair
from lincei.progress import CancelCheck, ProgressCallback
from lincei.set_list import read_set_list, with_variables
from lincei.training import kept_when_stopped, typed_command

if TYPE_CHECKING:
    from lincei.model import Model

# The files of a snapshot bundle that training reads (`arm_overlay.recording.write_snapshot`).
BUNDLE_FRAME, BUNDLE_OUTLINE, BUNDLE_SETTINGS = "frame.tif", "outline.geojson", "settings.json"
WHOLE = ("tumor", "normal")
# Larger images are read at a coarser level of their pyramid, or refused.
_MOST_PIXELS = 400_000_000


@dataclass(frozen=True)
class AnnotatedSet:
    """Where the images of a set are, and what is known about them.

    Parameters
    ----------
    images : str
        Pattern, file or folder (see `lincei.pattern`), or a folder of snapshot bundles.
    masks : str
        Pattern of their masks or outlines; empty for bundles, and where ``whole`` says what they are.
    name : str
        What the set is called; sets of one name are one.
    whole : {"", "tumor", "normal"}
        What the images are as a whole: small patches without masks.
    pixel_size_um : float, optional
        Goes before what the images state.
    split_by : str
        Placeholder of the pattern whose values (slides, runs) stay together.
    group : str
        All images are of this slide or run.
    edge_um : float
        As in `TrainTumorOptions`.
    share : float
        How often the set is trained on beside one of share 1.
    """

    images: str
    masks: str = ""
    name: str = ""
    whole: str = ""
    pixel_size_um: float | None = None
    split_by: str = ""
    group: str = ""
    edge_um: float = 0.0
    share: float = 1.0


def train_files(
    sets: Sequence[AnnotatedSet],
    out: str | Path,
    options: TrainTumorOptions,
    *,
    measure_on: Sequence[str] = (),
    folds: Mapping[str, str] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> Model:
    """Train from annotated images in files.

    Parameters
    ----------
    sets : sequence of AnnotatedSet
        What to learn from; see `named_sets` and `open_sets`.
    out : str or Path
        Folder of the model.
    options : TrainTumorOptions
        The options.
    measure_on : sequence of str
        Names of sets that are only measured on.
    folds : mapping of str to str, optional
        As in `arm_overlay.train`.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Raises
    ------
    UsageError
        When a set that is to be measured on is not there.
    LinceiError
        As `arm_overlay.train` and `read_set` do.
    CancelledError
        When it was stopped; the state is kept.
    """
    from arm_overlay.training import train

    names = {entry.name for entry in sets}
    for name in measure_on:
        if name not in names:
            raise UsageError(
                f"--measure-on names {name!r}, which is no set",
                "",
                f"There are: {', '.join(sorted(filter(None, names))) or 'none with a name'}.",
            )
    fields = [field for entry in sets for field in read_set(entry, options)]
    with kept_when_stopped():
        return train(
            [field for field in fields if field.set_name not in measure_on],
            out,
            options,
            measure_on=[field for field in fields if field.set_name in measure_on],
            folds=folds,
            command=typed_command(),
            progress=progress,
            cancelled=cancelled,
        )


def named_sets(images: Sequence[str], masks: Sequence[str], *, split_by: str = "") -> list[AnnotatedSet]:
    """Return the sets that ``--images`` and ``--masks`` name.

    Parameters
    ----------
    images, masks : sequence of str
        ``[NAME=]PATTERN``. Masks belong to the images of the same name; without names, to those in the same
        place of the list, where folders of snapshot bundles do not count.
    split_by : str
        As in `AnnotatedSet`; in sets whose pattern does not hold it, each image stands for itself.

    Raises
    ------
    UsageError
        When no images are given, a name is given twice, images have no masks or masks no images, or no
        pattern holds the placeholder.
    """
    if not images:
        raise UsageError("no images are given", "", "Add --images PATTERN and --masks PATTERN.")
    named = [name_and_pattern(text) for text in images]
    with_masks = [entry for entry in named if not _bundles(entry[1])]
    given = [name_and_pattern(text) for text in masks]
    for flag, entries in (("--images", named), ("--masks", given)):
        names = [name for name, _ in entries if name]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{flag} names two sets {name!r}", "", "Give each a name of its own.")
    by_name = {name: pattern for name, pattern in given if name}
    in_order = [pattern for name, pattern in given if not name]
    unnamed = [pattern for name, pattern in with_masks if not name]
    if len(in_order) != len(unnamed):
        raise UsageError(
            f"there are {len(unnamed)} patterns of images and {len(in_order)} of masks",
            "",
            "Give --masks PATTERN for each --images PATTERN; only folders of snapshot bundles need none.",
        )
    for name in by_name:
        if name not in [other for other, _ in with_masks]:
            raise UsageError(f"--masks names {name!r}, which no --images names")
    sets = []
    left = iter(in_order)
    for number, (name, pattern) in enumerate(named):
        called = name or (f"set {number + 1}" if len(named) > 1 else "")
        if _bundles(pattern):
            sets.append(AnnotatedSet(pattern, name=called))
            continue
        if name and name not in by_name:
            raise UsageError(f"the images {name!r} have no masks", "", f"Add --masks {name}=PATTERN.")
        own = by_name[name] if name else next(left)
        held = split_by if f"{{{split_by}}}" in pattern else ""
        sets.append(AnnotatedSet(pattern, own, called, split_by=held))
    if split_by and not any(entry.split_by for entry in sets):
        raise UsageError(
            f"--split-by is {split_by!r}, which no pattern of --images holds",
            "",
            f"Write {{{split_by}}} where the value stands in the names, such as slide_{{{split_by}}}_*.tif.",
        )
    return sets


def open_sets(path: str | Path) -> tuple[list[AnnotatedSet], dict[str, str] | None]:
    """Read the sets that a TOML file lists, and how their groups are dealt out to folds.

    Each ``[[set]]`` has ``images`` and what else `AnnotatedSet` has. A table ``[folds]`` lists, by the
    name of each fold, the groups that it holds out. Variables such as ``$LINCEI_DATA`` in patterns are filled
    in; a relative pattern starts in the folder of the file.

    Returns
    -------
    list of AnnotatedSet, and dict of str to str or None
        The sets, and each group's fold where the file says so.

    Raises
    ------
    LinceiError
        When the file cannot be understood; it names the set and the entry.
    """
    file = Path(path).expanduser()
    content = read_set_list(file, page="docs/tumor.md", tables=("folds",))
    sets = [
        _set_of(entry, file, f"{file}, set {entry.get('name', number)!r}")
        for number, entry in enumerate(content["set"], start=1)
    ]
    folds = content.get("folds")
    if folds is None:
        return sets, None
    if not isinstance(folds, dict) or not all(
        isinstance(groups, list) and all(isinstance(group, str) for group in groups)
        for groups in folds.values()
    ):
        raise LinceiError(
            "[folds] is not a list of groups for each fold", str(file), 'Such as: a = ["slide 1"]'
        )
    of_group: dict[str, str] = {}
    for name, groups in folds.items():
        for group in groups:
            if group in of_group:
                raise LinceiError(f"two folds hold out the group {group!r}", str(file), "Leave one out.")
            of_group[group] = name
    return sets, of_group


def read_set(entry: AnnotatedSet, options: TrainTumorOptions) -> list[AnnotatedField]:
    """Read the images of a set with their masks.

    Raises
    ------
    LinceiError
        When an image or mask cannot be read, their sizes differ, a pixel size is not known, or nothing pairs.
    UsageError
        When the pattern does not hold the placeholder to split by.
    """
    folders = _bundles(entry.images)
    if folders:
        return [_bundle(folder, entry, options) for folder in folders]
    found = find_inputs([entry.images])
    masks: list[Path | None] = [None] * len(found)
    if not entry.whole:
        if not entry.masks:
            raise UsageError("the images have no masks", entry.name or entry.images, "Add --masks PATTERN.")
        pairing = pair(found, {"mask": find_inputs([entry.masks])})
        if not pairing.pairs:
            raise LinceiError(
                "no image has a mask of its own",
                entry.images,
                " ".join(pairing.unpaired[:6]) or "Check the patterns.",
            )
        for sentence in pairing.unpaired:
            warnings.warn(sentence, LinceiWarning, stacklevel=2)
        found = [item.input for item in pairing.pairs]
        masks = [item.labels["mask"].paths[0] for item in pairing.pairs]
    if entry.split_by and not all(entry.split_by in group.captures for group in found):
        raise UsageError(
            f"split_by is {entry.split_by!r}, which the pattern of the images does not hold",
            entry.images,
            f"Write {{{entry.split_by}}} where the value stands in the names.",
        )
    return [
        _field(_opened(group), mask, entry, options, group.captures.get(entry.split_by, ""))
        for group, mask in zip(found, masks, strict=True)
    ]


def _bundles(text: str) -> list[Path]:
    """Return the snapshot bundles that a folder is or holds; none for anything else."""
    folder = Path(text).expanduser()
    if not folder.is_dir():
        return []
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [path for path in candidates if all((path / n).is_file() for n in (BUNDLE_FRAME, BUNDLE_OUTLINE))]


def _bundle(folder: Path, entry: AnnotatedSet, options: TrainTumorOptions) -> AnnotatedField:
    """Read a snapshot bundle; its outlines are what the user corrected in QuPath."""
    image = open_image(folder / BUNDLE_FRAME).with_(name=folder.name)
    settings = folder / BUNDLE_SETTINGS
    if image.pixel_size_um is None and settings.is_file():
        try:
            stated = json.loads(settings.read_text("utf-8")).get("pixel_size_um")
        except (ValueError, AttributeError) as error:
            raise LinceiError(
                "the settings of the snapshot cannot be read", str(settings), "Leave the snapshot out."
            ) from error
        if isinstance(stated, (int, float)) and stated > 0:
            image = image.with_(pixel_size_um=float(stated))
    return _field(image, folder / BUNDLE_OUTLINE, entry, options, folder.name)


def _field(
    image: Image, mask: Path | None, entry: AnnotatedSet, options: TrainTumorOptions, group: str
) -> AnnotatedField:
    """Read an image at the level that is fine enough, and its mask."""
    where = image.source or image.name
    size_um = entry.pixel_size_um or options.pixel_size_um or image.pixel_size_um
    if size_um is None:
        raise LinceiError("its pixel size is not known", where, "Give it with --pixel-size-um.")
    full = image.shape[3:]
    level = image
    for coarser in image.levels:
        if size_um * full[1] / coarser.shape[4] <= FINEST_UM:
            level = coarser
    factor = level.shape[4] / full[1]
    if level.shape[3] * level.shape[4] > _MOST_PIXELS:
        raise LinceiError(
            f"it has {level.shape[4]} x {level.shape[3]} pixels, too many to learn from at once",
            where,
            "Export the outlined regions as images of their own, with their outlines.",
        )
    colors = _colors(level, where)
    if mask is None:
        tumor = np.full(colors.shape[:2], entry.whole == "tumor")
        known = np.ones_like(tumor)
    else:
        tumor, known = mask_of(mask, colors.shape[:2], factor=factor, classes=options.classes)
    return annotated_field(
        image.name,
        colors,
        tumor,
        size_um / factor,
        known=known,
        group=group or entry.group,
        set_name=entry.name,
        share=entry.share,
        edge_um=entry.edge_um or options.edge_um,
        patch=mask is None,
    )


def _colors(image: Image, where: str) -> NDArray[np.uint8]:
    """Return a color image as (Y, X, 3), uint8."""
    times, _, planes = image.shape[:3]
    if not image.rgb:
        raise LinceiError("it is not in color", where, "Train on color images of sections stained with H&E.")
    if times > 1 or planes > 1:
        raise LinceiError(
            f"it has {times} time points and {planes} z planes", where, "Train on single planes."
        )
    pixels = np.moveaxis(image.read()[0, :, 0], 0, -1)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = image.intensity_range or full_range(pixels.dtype) or (0.0, 1.0)
    scaled = (np.asarray(pixels, np.float32) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


_SET_KEYS: dict[str, type | tuple[type, ...]] = {
    "images": str,
    "masks": str,
    "name": str,
    "whole": str,
    "pixel_size_um": (int, float),
    "split_by": str,
    "group": str,
    "edge_um": (int, float),
    "share": (int, float),
}


def _set_of(entry: Mapping[str, Any], file: Path, where: str) -> AnnotatedSet:
    """Check one entry of a list of sets."""
    for key, value in entry.items():
        if key not in _SET_KEYS:
            raise LinceiError(f"there is no entry {key!r}", where, f"Choose from: {', '.join(_SET_KEYS)}.")
        if not isinstance(value, _SET_KEYS[key]) or isinstance(value, bool):
            raise LinceiError(f"the entry {key!r} is {value!r}", where, "Correct it; see docs/tumor.md.")
    if "images" not in entry:
        raise LinceiError("the entry 'images' is missing", where, "Add it; see docs/tumor.md.")
    if entry.get("whole", "tumor") not in WHOLE:
        raise LinceiError(f"whole is {entry['whole']!r}", where, f"Choose from: {', '.join(WHOLE)}.")
    for key in ("share", "pixel_size_um"):
        if not entry.get(key, 1) > 0:
            raise LinceiError(f"{key} is {entry[key]!r}", where, "Give a number above 0.")

    def pattern(text: str) -> str:
        filled = with_variables(text, where)
        # What a variable says is the user's own path and starts where the user is.
        return filled if text.startswith("$") or not filled else str(file.parent / filled)

    values = {**entry, "images": pattern(entry["images"]), "masks": pattern(entry.get("masks", ""))}
    for key in ("pixel_size_um", "edge_um", "share"):
        if key in values:
            values[key] = float(values[key])
    return AnnotatedSet(**values)


def _opened(group: InputGroup) -> Image:
    """Open an input; a damaged one is named."""
    try:
        return group.open()
    except LinceiError as error:
        raise LinceiError(
            error.what, error.where or group.source, error.what_to_do or "Leave it out of --images."
        ) from error
