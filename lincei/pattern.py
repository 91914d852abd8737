"""The one grammar for file patterns: which files are inputs, which join into one image, which pair.

=================  ==================================================================================
text               meaning
=================  ==================================================================================
``a.tif``          this file
``folder``         every image in the folder, one by one; also an OME-Zarr folder, which is one image
``*``              any text within a name; captured, so that inputs and labels pair by it
``?``              one character; not captured
``**``             folders to any depth; captured
``{z} {t}``        numbers; the files join into one image along this axis, in numeric order
``{c}``            number or text; the files are the channels of one image, named by the text
``{y} {x}``        numbers of row and column; the files are tiles without overlap, put on a grid
``{well}``         letters, digits and hyphens; each value is another image
``{field}``        the same
``{name}``         any text; each value is another image
``isl:FOLDER``     the inputs in the published in silico labeling data, which lie anywhere in the folder;
                   ``isl:FOLDER#DAPI_CONFOCAL`` names one of their labels
=================  ==================================================================================
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import AXES, SUFFIXES, TIFF_SUFFIXES, Image, is_zarr, join_images, open_image, stem

NUMBER = r"-?\d+(?:\.\d+)?"
PLACEHOLDERS = {
    "t": NUMBER,
    "c": r"[^/\\]+?",
    "z": NUMBER,
    "y": NUMBER,
    "x": NUMBER,
    "well": r"[A-Za-z0-9-]+",
    "field": r"[A-Za-z0-9-]+",
    "name": r"[^/\\]+?",
}
JOINING = frozenset("tczyx")
TOKEN = re.compile(r"\{[^{}]*\}|\*+|\?+")
ISL_PRESET = "isl:"
# How the published data name the transmitted-light channels.
ISL_TRANSMITTED = {
    "PHASE_CONTRAST": "phase contrast",
    "BRIGHTFIELD": "bright field",
    "BRIGHT_FIELD": "bright field",
    "DIC": "DIC",
}
# Keys of a published file name that tell the images of one field apart; all others tell the field.
ISL_OF_THE_IMAGE = ("z_depth", "depth_computation", "channel", "is_mask", "kind", "statistic")
ISL_DATE_PARTS = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True)
class InputGroup:
    """One image to be: a file, or the files that join into it.

    Parameters
    ----------
    stem : str
        What outputs are named after.
    files : mapping of Path to mapping of str to str
        Each file and its position by axis letter ("Z": "07"), empty for a single file.
    captures : mapping of str to str
        What tells this image from the others of its pattern: the values of ``{well}``, ``{field}`` and
        ``{name}``, and of each ``*`` under the keys ``*1``, ``*2`` and so on.
    source : str
        The file, or the pattern with the captured values filled in; for messages and provenance.
    modality : str, optional
        Known from a preset.
    channel_names : tuple of str
        Known from a preset.
    """

    stem: str
    files: Mapping[Path, Mapping[str, str]]
    captures: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    modality: str | None = None
    channel_names: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, ordered by T, then C, Z, Y, X."""
        positions = self.files

        def order(path: Path) -> list[tuple[Any, ...]]:
            return [_natural(positions[path].get(axis, "")) for axis in AXES]

        return tuple(sorted(positions, key=order))

    def open(
        self,
        *,
        level: int = 0,
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
        modality: str | None = None,
        scene: int | None = None,
    ) -> Image:
        """Open the image; its pixels are read when they are asked for.

        Parameters
        ----------
        level, pixel_size_um, z_step_um, modality, scene
            As in `lincei.image.open_image`.

        Returns
        -------
        Image
            Named after the stem.

        Raises
        ------
        LinceiError
            When a file cannot be opened, sizes or types differ, or a plane is missing; it says which.
        """
        modality = modality or self.modality

        def opened(path: Path) -> Image:
            return open_image(
                path,
                level=level,
                pixel_size_um=pixel_size_um,
                z_step_um=z_step_um,
                modality=modality,
                scene=scene,
            )

        if len(self.files) == 1:
            image = opened(next(iter(self.files)))
        else:
            axes = [axis for axis in AXES if any(axis in place for place in self.files.values())]
            places = self._places(axes)
            image = self._joined({at: opened(path) for at, path in places.items()}, axes)
            if z_step_um is not None:
                image = image.with_(z_step_um=z_step_um)
        names = self.channel_names if len(self.channel_names) == image.shape[1] else image.channel_names
        return image.with_(name=self.stem, source=self.source or image.source, channel_names=names)

    def _places(self, axes: Sequence[str]) -> dict[tuple[str, ...], Path]:
        """Return each file by its position along ``axes``; raise when one is missing or there twice."""
        places: dict[tuple[str, ...], Path] = {}
        # 1 and 01 are one position: each is known by the text that comes first.
        known: dict[tuple[str, Any], str] = {}
        for path in self.paths:
            texts = [self.files[path].get(axis, "") for axis in axes]
            at = tuple(
                known.setdefault((axis, _natural(text)), text) for axis, text in zip(axes, texts, strict=True)
            )
            if at in places:
                raise LinceiError(
                    f"two files are the same plane: {places[at].name} and {path.name}",
                    self.source,
                    "Make the pattern fit one of them only.",
                )
            places[at] = path
        values = [sorted({at[i] for at in places}, key=_natural) for i in range(len(axes))]
        for axis, texts in zip(axes, values, strict=True):
            if axis != "C":
                _refuse_gap(axis, texts, self.source)
        for at in itertools.product(*values):
            if at not in places:
                where = ", ".join(f"{a.lower()} = {text}" for a, text in zip(axes, at, strict=True))
                raise LinceiError(
                    f"the file for {where} is missing", self.source, "Add it, or leave its stack out."
                )
        return places

    def _joined(self, images: Mapping[tuple[str, ...], Image], axes: Sequence[str]) -> Image:
        """Join images along the first of ``axes``, each after joining along the others."""
        if not axes:
            return next(iter(images.values()))
        groups: dict[str, dict[tuple[str, ...], Image]] = {}
        for (first, *rest), image in images.items():
            groups.setdefault(first, {})[tuple(rest)] = image
        texts = sorted(groups, key=_natural)
        joined = join_images([self._joined(groups[text], axes[1:]) for text in texts], axes[0], self.stem)
        if axes[0] == "C" and len(texts) == joined.shape[1] and not all(text.isdigit() for text in texts):
            joined = joined.with_(channel_names=tuple(texts))
        return joined


@dataclass(frozen=True)
class Pair:
    """An input and the labels that belong to it, by label name."""

    input: InputGroup
    labels: Mapping[str, InputGroup]


@dataclass(frozen=True)
class Pairing:
    """What `pair` found.

    Parameters
    ----------
    pairs : tuple of Pair
        Inputs with at least one label.
    unpaired : tuple of str
        A sentence for each input or label left over.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]


class IslField(NamedTuple):
    """A field of the published in silico labeling data.

    Parameters
    ----------
    input : InputGroup
        The transmitted-light stack.
    labels : dict of str to InputGroup
        The fluorescence images by channel, as ``"DAPI_CONFOCAL"``.
    masks : dict of str to InputGroup
        The images named ``is_mask-true``, by channel.
    """

    input: InputGroup
    labels: dict[str, InputGroup]
    masks: dict[str, InputGroup]


def name_and_pattern(text: str) -> tuple[str, str]:
    """Part ``NAME=PATTERN``; a path may hold '=' itself, after its first separator.

    Returns
    -------
    tuple of str
        The name, empty where there is none, and the pattern.
    """
    name, equals, pattern = text.partition("=")
    if not equals or any(mark in name for mark in "/\\*{.") or Path(text).exists():
        return "", text
    return name, pattern


def find_inputs(inputs: Sequence[str | Path]) -> list[InputGroup]:
    """Find the images that files, folders and patterns stand for.

    Parameters
    ----------
    inputs : sequence of str or Path
        See the table at the top of this module.

    Returns
    -------
    list of InputGroup
        In the order of ``inputs``, each image once, however its path is spelled. A file that is not
        there is among them: opening it says so, and the others are not held up.

    Raises
    ------
    LinceiError
        When nothing fits a pattern, or a folder holds no image.
    UsageError
        When a pattern has an unknown placeholder.
    """
    # A link to a file is an input of its own (links may give one file several names), one to a folder is not.
    folder = functools.cache(Path.resolve)
    groups: dict[frozenset[Path], InputGroup] = {}
    for text in inputs:
        for group in _found(str(text)):
            groups.setdefault(frozenset(folder(path.parent) / path.name for path in group.files), group)
    return list(groups.values())


def refuse_equal_stems(groups: Sequence[InputGroup]) -> None:
    """Raise when two inputs would be written under one name.

    Raises
    ------
    LinceiError
        Naming the two. Names that differ in case only are equal: on many disks they are one file.
    """
    seen: dict[str, InputGroup] = {}
    for group in groups:
        other = seen.setdefault(group.stem.casefold(), group)
        if other is not group:
            raise LinceiError(
                f"it would be written under the same name, {group.stem!r}, as {other.source}",
                group.source,
                "Rename one, run them one by one, or write {name} for the part of the path that differs.",
            )


def pair(inputs: Sequence[InputGroup], labels: Mapping[str, Sequence[InputGroup]]) -> Pairing:
    """Pair inputs with labels whose placeholders and ``*`` have equal values.

    Only what both patterns capture is compared. Where they have nothing in common, a single input pairs
    with a single label.

    Parameters
    ----------
    inputs : sequence of InputGroup
        From `find_inputs`.
    labels : mapping of str to sequence of InputGroup
        What `find_inputs` found for each label.

    Returns
    -------
    Pairing
        An input that lacks some labels is paired with those it has; what is left over is listed.
    """
    sentences: list[str] = []
    found: list[dict[str, InputGroup]] = [{} for _ in inputs]
    for name, candidates in labels.items():
        taken: dict[int, list[int]] = {}  # candidate -> inputs
        for i, group in enumerate(inputs):
            fitting = [
                k for k, other in enumerate(candidates) if _fit(group, other, len(inputs), len(candidates))
            ]
            if len(fitting) == 1:
                taken.setdefault(fitting[0], []).append(i)
            elif fitting:
                listed = _listed([candidates[k].source for k in fitting])
                sentences.append(f"{group.source}: several files fit as {name}: {listed}.")
            else:
                sentences.append(f"{group.source}: there is no {name} for it.")
        for k, users in taken.items():
            if len(users) == 1:
                found[users[0]][name] = candidates[k]
            else:
                listed = _listed([inputs[i].source for i in users])
                sentences.append(f"{candidates[k].source}: several inputs fit this {name}: {listed}.")
        sentences.extend(
            f"{other.source}: there is no input for this {name}."
            for k, other in enumerate(candidates)
            if k not in taken
        )
    pairs = tuple(Pair(group, own) for group, own in zip(inputs, found, strict=True) if own)
    return Pairing(pairs, tuple(sentences))


def find_isl(folder: str | Path) -> list[IslField]:
    """Find the fields of the published in silico labeling data by their file names.

    Names are keys and values (``z_depth-7``), joined by commas; a nested key stands alone before its
    parts (``acquisition_date,year-2016,month-2,day-6``), and in the later spelling before its value
    (``channel,value-DAPI_CONFOCAL``). Predictions (``kind,value-PREDICTED``) are left out.

    Parameters
    ----------
    folder : str or Path
        Searched to any depth.

    Returns
    -------
    list of IslField
        One for each field and transmitted-light channel.

    Raises
    ------
    LinceiError
        When the folder is not there or holds no such field.

    References
    ----------
    Christiansen et al., "In Silico Labeling: Predicting Fluorescent Labels in Unlabeled Images",
    Cell 173:792 (2018); the names are explained with the data.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise LinceiError("there is no such folder", str(folder), "Check the path.")
    fields: dict[tuple[Any, ...], list[tuple[Path, dict[str, str]]]] = {}
    composites = 0
    for path in sorted(folder.rglob("*.png"), key=lambda path: _natural(str(path))):
        keys = isl_keys(path.name)
        if not {"lab", "condition"} <= keys.keys() or keys.get("kind") == "PREDICTED" or "statistic" in keys:
            continue
        if "channel" not in keys:
            composites += 1
            continue
        of_field = {key: value for key, value in keys.items() if key not in ISL_OF_THE_IMAGE}
        fields.setdefault((path.parent, *of_field.items()), []).append((path, keys))
    found = [isl_field for key, images in fields.items() for isl_field in _isl_fields(dict(key[1:]), images)]
    if not found:
        raise LinceiError(
            "the folder holds no transmitted-light images named as the published in silico labeling data",
            str(folder),
            "Their names begin with lab-...,condition-...",
        )
    if composites:
        warnings.warn(
            f"{folder}: {composites} pictures that show several channels at once are left out; "
            "the labels are in the sets of single-channel images.",
            LinceiWarning,
            stacklevel=2,
        )
    return found


def isl_keys(name: str) -> dict[str, str]:
    """Return the keys and values of a published file name; empty when it is not one.

    Examples
    --------
    >>> isl_keys("lab-Rubin,acquisition_date,year-2016,month-2,z_depth-7,channel,value-DIC,is_mask-false.png")
    {'lab': 'Rubin', 'acquisition_date': '2016-2', 'z_depth': '7', 'channel': 'DIC', 'is_mask': 'false'}
    """
    keys: dict[str, str] = {}
    parent = ""
    for part in name.rpartition(".")[0].split(","):
        key, hyphen, value = part.partition("-")
        if not hyphen:
            parent = key
        elif key == "value" and parent:
            keys[parent] = value
        elif parent == "acquisition_date" and key in ISL_DATE_PARTS:
            keys[parent] = f"{keys[parent]}-{value}" if parent in keys else value
        else:
            keys[key] = value
    return keys


def _isl_fields(of_field: dict[str, str], images: list[tuple[Path, dict[str, str]]]) -> list[IslField]:
    """Return a field for each transmitted-light channel among the images of one field."""
    name = "_".join(of_field.values())
    stacks: dict[tuple[bool, str, str], dict[Path, dict[str, str]]] = {}
    for path, keys in images:
        projection = keys.get("depth_computation", "")
        place = {} if projection or "z_depth" not in keys else {"Z": keys["z_depth"]}
        stack = (keys.get("is_mask") == "true", keys["channel"], projection)
        stacks.setdefault(stack, {})[path] = place
    transmitted: dict[str, InputGroup] = {}
    labels: dict[str, InputGroup] = {}
    masks: dict[str, InputGroup] = {}
    # A stack goes before a projection of the input, the maximum projection before all else of a label.
    for (is_mask, channel, projection), files in sorted(
        stacks.items(), key=lambda item: (item[0][:2], item[0][2] not in ("", "MAXPROJECT"), item[0][2])
    ):
        modality = ISL_TRANSMITTED.get(channel)
        kind = masks if is_mask else labels if modality is None else transmitted
        if modality is None and not is_mask and (False, channel, "MAXPROJECT") in stacks:
            plain = projection == "MAXPROJECT"
        else:
            plain = channel not in kind
        title = channel if plain else f"{channel} ({projection or 'z stack'})"
        if modality is not None and not is_mask and not plain:
            continue
        first = next(iter(files))
        source = str(first)
        if len(files) > 1:
            source = str(first.with_name(re.sub(r"z_depth-\d+", "z_depth-{z}", first.name)))
        kind[title] = InputGroup(
            stem=f"{name}_{title}" if kind is not transmitted else name,
            files=files,
            captures=of_field,
            source=source,
            modality=None if is_mask else modality,
            channel_names=(title,),
        )
    several = len(transmitted) > 1
    fields = []
    for channel, group in transmitted.items():
        own = InputGroup(
            f"{group.stem}_{channel}" if several else group.stem,
            group.files,
            group.captures,
            group.source,
            group.modality,
            group.channel_names,
        )
        fields.append(IslField(own, labels, masks))
    return fields


def _found(text: str) -> list[InputGroup]:
    """Return the images that one file, folder, pattern or preset stands for."""
    if text.startswith(ISL_PRESET):
        folder, _, label = text[len(ISL_PRESET) :].partition("#")
        if not folder:
            raise UsageError("the preset isl: names no folder", text, "Write isl:FOLDER.")
        fields = find_isl(folder)
        if not label:
            return [isl_field.input for isl_field in fields]
        return [isl_field.labels[label] for isl_field in fields if label in isl_field.labels]
    path = Path(text).expanduser()
    if path.is_dir() and not is_zarr(path):
        return _of_folder(path)
    if path.exists() or not TOKEN.search(text):
        return [InputGroup(stem(path), {path: {}}, source=str(path))]
    return _of_pattern(path)


def _of_folder(folder: Path) -> list[InputGroup]:
    """Return the images of a folder, each file one, a multi-file OME-TIFF once."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: _natural(path.name))
    except PermissionError as error:
        raise LinceiError("there is no permission to read the folder", str(folder)) from error
    paths = [path for path in entries if _is_image(path)]
    members: set[str] = set()
    groups = []
    several_ome = sum(_is_ome_tiff(path) for path in paths) > 1
    for path in paths:
        if path.name in members:
            continue
        if several_ome and _is_ome_tiff(path):
            from lincei.formats.tiff import ome_set

            members |= ome_set(path)
        groups.append(InputGroup(stem(path), {path: {}}, {"name": stem(path)}, str(path)))
    if not groups:
        raise LinceiError("the folder holds no image", str(folder), f"These are read: {', '.join(SUFFIXES)}.")
    return groups


def _is_ome_tiff(path: Path) -> bool:
    return path.name.lower().endswith(tuple(suffix for suffix in TIFF_SUFFIXES if suffix.startswith(".ome")))


def _is_image(path: Path) -> bool:
    """Tell whether a folder's entry is to be opened as an image."""
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return is_zarr(path)
    return path.name.lower().endswith(SUFFIXES)


class _Match(NamedTuple):
    """A file that fits a pattern."""

    path: Path
    values: dict[str, str]


def _of_pattern(pattern: Path) -> list[InputGroup]:
    """Return the images that a pattern with wildcards or placeholders stands for."""
    placeholders = _placeholders(str(pattern))
    joining = [name for name in placeholders if name in JOINING]
    parts = list(pattern.parts)
    if parts[-1] == "**":
        parts.append("*")
    fixed = list(itertools.takewhile(lambda part: not TOKEN.search(part), parts))
    base = Path(*fixed) if fixed else Path()
    matches = list(_walk(base, parts[len(fixed) :], {}))
    if parts[-1].endswith("*"):
        matches = [match for match in matches if _is_image(match.path)]
    if not matches:
        raise LinceiError(
            "no file fits this pattern", str(pattern), _near_files(base) or f"There is no folder {base}."
        )
    ignored: frozenset[str] = frozenset()
    groups = _grouped(matches, bool(joining), ignored)
    if joining and len(groups) > 1 and all(len(group) == 1 for group in groups):
        ignored = _stars_within_a_stack(pattern, matches, joining)
        groups = _grouped(matches, True, ignored)
    found = []
    for group in groups:
        captures = {k: text for k, text in group[0].values.items() if k not in JOINING | ignored}
        files = {match.path: {name.upper(): match.values[name] for name in joining} for match in group}
        source = str(group[0].path) if not joining else _filled(str(pattern), captures)
        name = _stem_of(group[0], parts, captures, bool(joining))
        found.append(InputGroup(name, files, captures, source))
    return sorted(found, key=lambda group: _natural(group.source))


def _placeholders(pattern: str) -> list[str]:
    """Return the names of the placeholders in a pattern; raise when one is unknown."""
    names = [token[1:-1] for token in TOKEN.findall(pattern) if token.startswith("{")]
    for name in names:
        if name not in PLACEHOLDERS:
            known = " ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise UsageError(f"there is no placeholder {{{name}}}", pattern, f"There are: {known}.")
    return list(dict.fromkeys(names))


def _walk(folder: Path, parts: list[str], values: dict[str, str]) -> Iterator[_Match]:
    """Yield the files under ``folder`` that fit the remaining parts of a pattern."""
    if not folder.is_dir():
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        key = f"**{1 + sum(name.startswith('**') for name in values)}"
        for below in _folders_below(folder):
            yield from _walk(below, rest, {**values, key: below.relative_to(folder).as_posix()})
        return
    if not TOKEN.search(part):
        if rest:
            yield from _walk(folder / part, rest, values)
        elif (folder / part).exists():
            yield _Match(folder / part, values)
        return
    stars = sum(name.startswith("*") and not name.startswith("**") for name in values)
    expression, names = _expression(part, stars)
    for entry in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if entry.name.startswith(".") and not part.startswith("."):
            continue
        fit = expression.fullmatch(entry.name)
        if fit is None:
            continue
        own = {name: fit.group(group) for group, name in names.items()}
        if any(values.get(name, value) != value for name, value in own.items()):
            continue
        if rest:
            if entry.is_dir():
                yield from _walk(entry, rest, {**values, **own})
        elif entry.is_file() or is_zarr(entry):
            yield _Match(entry, {**values, **own})


def _expression(part: str, stars: int) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return the regular expression of one name in a pattern, and what each of its groups captures."""
    names: dict[str, str] = {}
    text = ""
    position = 0
    for token in TOKEN.finditer(part):
        text += re.escape(part[position : token.start()])
        position = token.end()
        if token.group().startswith("?"):
            text += "." * len(token.group())
        elif token.group().startswith("*"):
            stars += 1
            group = f"star{stars}"
            names[group] = f"*{stars}"
            text += f"(?P<{group}>.*?)"
        else:
            name = token.group()[1:-1]
            text += f"(?P={name})" if name in names else f"(?P<{name}>{PLACEHOLDERS[name]})"
            names[name] = name
    return re.compile(text + re.escape(part[position:])), names


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield a folder and all folders in it, but for hidden ones and the insides of OME-Zarr."""
    yield folder
    for entry in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        if (
            entry.is_dir()
            and not entry.is_symlink()
            and not entry.name.startswith(".")
            and not is_zarr(entry)
        ):
            yield from _folders_below(entry)


def _grouped(matches: list[_Match], joins: bool, ignored: frozenset[str]) -> list[list[_Match]]:
    """Group the files that join into one image: those with equal captures."""
    groups: dict[Any, list[_Match]] = {}
    for match in matches:
        own = {key: text for key, text in match.values.items() if key not in JOINING | ignored}
        groups.setdefault(tuple(sorted(own.items())) if joins else match.path, []).append(match)
    return list(groups.values())


def _stars_within_a_stack(pattern: Path, matches: list[_Match], joining: list[str]) -> frozenset[str]:
    """Return the stars that only vary from plane to plane, for a pattern with which no two files join.

    A ``*`` behind the number of the plane, as in ``step{z}_Z*um.tif``, is such a one when the files then
    join. One before it could as well tell images apart: that is for the user to say.
    """
    if len({tuple(match.values[name] for name in joining) for match in matches}) == 1:
        return frozenset()
    tokens = TOKEN.findall(str(pattern))
    last = max(i for i, token in enumerate(tokens) if token[1:-1] in JOINING)
    stars = [i for i, token in enumerate(tokens) if token.startswith("*") and token != "**"]
    behind = frozenset(f"*{number}" for number, i in enumerate(stars, start=1) if i > last)
    groups = _grouped(matches, True, behind)
    planes = [{tuple(match.values[name] for name in joining) for match in group} for group in groups]
    if len(groups) < len(matches) and all(len(own) == len(g) for own, g in zip(planes, groups, strict=True)):
        return behind
    if stars:
        raise UsageError(
            "no two files join, because * stands for another text in each",
            str(pattern),
            "Write ? for each character that varies within a stack.",
        )
    return frozenset()


def _near_files(base: Path) -> str:
    """Return a sentence with a few names that are in the folder."""
    if not base.is_dir():
        return ""
    names = sorted(entry.name for entry in base.iterdir() if not entry.name.startswith("."))[:3]
    return (
        f"The folder {base} holds, for example: {', '.join(names)}."
        if names
        else f"The folder {base} is empty."
    )


def _filled(pattern: str, captures: Mapping[str, str]) -> str:
    """Return a pattern with what was captured put in, and what joins left as it is."""
    stars = itertools.count(1)
    deep = itertools.count(1)

    def value(token: re.Match[str]) -> str:
        text = token.group()
        if text == "**":
            return captures.get(f"**{next(deep)}", text)
        if text.startswith("*"):
            return captures.get(f"*{next(stars)}", text)
        return captures.get(text[1:-1], text)

    return TOKEN.sub(value, pattern)


def _stem_of(match: _Match, parts: list[str], captures: Mapping[str, str], joins: bool) -> str:
    """Return the stem of an image: its file's name, or a stack's fixed part, with the captured values."""
    last = parts[-1]
    if joins:
        folders = [token for part in parts[:-1] for token in TOKEN.findall(part)]
        before = sum(token.startswith("*") and token != "**" for token in folders)
        # The stars of the name are numbered on from those of the folders.
        own = {key: text for key, text in captures.items() if not key.startswith("*")}
        own |= {f"*{n - before}": captures[f"*{n}"] for n in range(before + 1, 99) if f"*{n}" in captures}
        name = _fixed_part(_filled(stem(last), own))
        name = name or match.path.parent.name or "image"
    else:
        name = stem(match.path)
    # Values of placeholders that stand in folder names only would be lost; those of * are not promised.
    in_name = {token[1:-1] for token in TOKEN.findall(last) if token.startswith("{")}
    lost = [captures[key] for key in captures if not key.startswith("*") and key not in in_name]
    return "_".join([*lost, name])


def _fixed_part(text: str) -> str:
    """Return a name without the placeholders that join, their axis letters and the separators left over."""
    # The axis letter, or "ch" for a channel, goes with its number, as does a unit behind it.
    number = r"(?:\{[tczyx]\}|[?*]+)"
    text = re.sub(rf"(?i:(?<![^\W_])(?:ch|[tczyx]))?{number}(?:(?:um|µm|nm|ms|s|min|h)(?![^\W_]))?", "", text)
    text = re.sub(r"([_\-. ])[_\-. ]+", r"\1", text)
    return text.strip("_-. ")


def _fit(group: InputGroup, label: InputGroup, inputs: int, labels: int) -> bool:
    """Tell whether a label belongs to an input."""
    common = group.captures.keys() & label.captures.keys()
    if not common:
        return inputs == 1 and labels == 1
    return all(group.captures[key] == label.captures[key] for key in common)


def _listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _refuse_gap(axis: str, texts: Sequence[str], where: str) -> None:
    """Raise when the numbers along an axis leave one out."""
    if not all(re.fullmatch(NUMBER, text) for text in texts):
        return
    numbers = sorted(float(text) for text in texts)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if not steps:
        return
    missing: list[float] = []
    if all(number.is_integer() for number in numbers):
        step = math.gcd(*(int(difference) for difference in steps))
        expected = range(int(numbers[0]), int(numbers[-1]), step)
        missing = [number for number in expected if number not in numbers]
    else:
        # Positions in um are not exact: a gap is a step half as long again as the usual one.
        usual = sorted(steps)[len(steps) // 2]
        missing = [before + usual for before, d in zip(numbers, steps, strict=False) if d > 1.5 * usual]
    if missing:
        numbers_text = ", ".join(f"{number:g}" for number in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise LinceiError(
            f"a file is missing: there is none for {axis.lower()} = {numbers_text}{more}",
            where,
            "Add it, or move the files after the gap elsewhere.",
        )


def _natural(text: str) -> tuple[Any, ...]:
    """Return a key that sorts numbers within a text by value: z2 before z10, and 1 equal to 01."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", text)
    if text.startswith("-") and re.fullmatch(NUMBER, text):
        return ((0, float(text), ""),)
    return tuple((0, float(p), "") if p[0].isdigit() else (1, 0.0, p) for p in pieces if p)
