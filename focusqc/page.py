"""The page of a folder's ratings: overview, what to leave out, pictures, focal series, and the table of all.

One file that opens offline. Images are added as they are rated; of their pictures only a bounded number is
kept, so that ten thousand images take little more memory than a hundred. Of a focal series the sharpest plane
is counted and shown; the table lists all planes.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import io
import itertools
import json
import os
import platform
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from focusqc.levels import LAST_LEVEL_IN_FOCUS, LEAST_CERTAINTY, LEVELS
from focusqc.overlay import level_color
from focusqc.rating import FocusRating, PlaneRating
from focusqc.tables import deciding_planes
from lincei import __version__
from lincei.image import replacing
from lincei.report import Figure, Section, Table, shrunk

RGB = NDArray[np.uint8]
PlaneKey = tuple[int, int, int]

# How many pictures the page holds, by why they are there; one picture may be there for several reasons.
_SHARPEST, _MOST_BLURRED, _LEAST_CERTAIN, _BETWEEN = 12, 14, 12, 22
# Large enough to see the specimen in each patch of a field of a thousand pixels.
_PICTURE_PX, _JPEG_QUALITY = 640, 72

_COLUMNS = (
    # title, field of _Row, kind
    ("file", "file", "text"),
    ("time", "time", "number"),
    ("channel", "channel", "text"),
    ("z", "z", "number"),
    ("level", "predicted_level", "level"),
    ("expected level", "expected_level", "number"),
    ("certainty", "certainty", "number"),
    ("mean certainty of patches", "certainty_mean", "number"),
    ("in focus", "in_focus", "text"),
    ("defocus (um)", "defocus_um", "number"),
    ("sharpest of its stack", "sharpest", "text"),
    ("note", "note", "text"),
)
_ALWAYS_SHOWN = ("file", "predicted_level", "expected_level", "certainty", "certainty_mean", "in_focus")


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table says of a plane."""

    file: str
    time: int
    channel: str
    z: int
    predicted_level: int
    expected_level: float
    certainty: float
    certainty_mean: float
    in_focus: str
    defocus_um: float | None
    sharpest: str
    note: str


@dataclass(slots=True)
class _Candidate:
    """A plane of which the picture may be shown; the picture itself only once it is chosen."""

    row: int
    level: float
    certainty: float
    jpeg: bytes = b""
    size_px: tuple[int, int] = (0, 0)


class _Group(Protocol):
    def offer(self, candidate: _Candidate) -> bool: ...
    def kept(self) -> Iterable[_Candidate]: ...


class _First:
    """Keeps those that come first in an order."""

    def __init__(self, capacity: int, order: Callable[[_Candidate], float]) -> None:
        self._capacity, self._order = capacity, order
        self._candidates: list[_Candidate] = []

    def offer(self, candidate: _Candidate) -> bool:
        """Return whether the candidate is kept for now."""
        # Behind its equals: a folder of images that are all alike does not change its mind all the time.
        bisect.insort_right(self._candidates, candidate, key=self._order)
        return len(self._candidates) <= self._capacity or self._candidates.pop() is not candidate

    def kept(self) -> Iterable[_Candidate]:
        return self._candidates


class _Spread:
    """Keeps candidates whose levels lie as far apart as the images allow, the ends included."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._candidates: list[_Candidate] = []

    def offer(self, candidate: _Candidate) -> bool:
        """Return whether the candidate is kept for now."""
        kept = self._candidates
        place = bisect.bisect_right(kept, candidate.level, key=_level)
        if len(kept) == self._capacity and place and kept[place - 1].level == candidate.level:
            return False
        kept.insert(place, candidate)
        if len(kept) <= self._capacity:
            return True
        # The one between the closest neighbors tells least.
        crowded = min(range(1, len(kept) - 1), key=lambda i: kept[i + 1].level - kept[i - 1].level)
        return kept.pop(crowded) is not candidate

    def kept(self) -> Iterable[_Candidate]:
        return self._candidates


def _level(candidate: _Candidate) -> float:
    return candidate.level


@dataclass
class _Stack:
    """Rows of a focal series, one after the other."""

    first: int
    planes: int


@dataclass
class PageCollector:
    """Gathers ratings while they are made, and writes the page in the end.

    Parameters
    ----------
    title : str
        Heading of the page.
    """

    title: str
    _rows: list[_Row] = field(default_factory=list)
    _failures: list[tuple[str, str]] = field(default_factory=list)
    _stacks: list[_Stack] = field(default_factory=list)
    _deciding: list[int] = field(default_factory=list)
    _links: dict[int, Path] = field(default_factory=dict)
    _groups: tuple[_Group, ...] = field(
        default_factory=lambda: (
            _First(_SHARPEST, _level),
            _First(_MOST_BLURRED, lambda candidate: -candidate.level),
            _First(_LEAST_CERTAIN, lambda candidate: candidate.certainty),
            _Spread(_BETWEEN),
        )
    )
    _images: int = 0
    _pictures_offered: int = 0
    _provenance: Mapping[str, Any] = field(default_factory=dict)

    def add(
        self,
        rating: FocusRating,
        overlays: Mapping[PlaneKey, RGB] | None = None,
        overlay_paths: Mapping[PlaneKey, Path] | None = None,
    ) -> None:
        """Add an image.

        Parameters
        ----------
        rating : FocusRating
            Its rating.
        overlays : mapping of (time, channel, z) to ndarray of uint8, shape (Y, X, 3), optional
            Overlays, the key below the image included or not: of the planes that `deciding_planes` names.
        overlay_paths : mapping of (time, channel, z) to Path, optional
            Where those are written, for a link.
        """
        self._images += 1
        self._provenance = self._provenance or rating.provenance
        numbers: dict[PlaneKey, int] = {}
        for plane, values in zip(rating.planes, rating.image_rows(), strict=True):
            numbers[plane.time, plane.channel, plane.z] = len(self._rows)
            self._rows.append(_row(values))
        for key, path in (overlay_paths or {}).items():
            self._links[numbers[key]] = Path(path)
        # Planes come by time, channel and z: those of a series lie side by side.
        series = Counter((plane.time, plane.channel) for plane in rating.planes)
        first = len(self._rows) - len(rating.planes)
        for count in series.values():
            if count > 1:
                self._stacks.append(_Stack(first, count))
            first += count
        for plane in deciding_planes(rating):
            key = (plane.time, plane.channel, plane.z)
            self._deciding.append(numbers[key])
            if overlays is not None and key in overlays:
                self._offer(numbers[key], overlays[key], rating.size_px)

    def add_failure(self, file: str, reason: str) -> None:
        """Add an image that could not be rated, and why."""
        # The table has a column for the file.
        self._failures.append((file, reason.removeprefix(f"{file}: ")))

    def write(self, path: str | Path, excluded: Sequence[Mapping[str, str]] = ()) -> Path:
        """Write the page; it appears under its name only when it is complete.

        Parameters
        ----------
        path : str or Path
            Where to; overlays are linked relative to its folder.
        excluded : sequence of mapping
            What to leave out: rows with ``file``, ``time``, ``channel``, ``z`` and ``reason``.

        Returns
        -------
        Path
            ``path``.

        Raises
        ------
        LinceiError
            When the file cannot be written.
        """
        target = Path(path)
        html = self._html(target.parent, excluded)
        with replacing(target) as temporary:
            temporary.write_text(html, encoding="utf-8")
        return target

    def _offer(self, number: int, overlay: RGB, size_px: tuple[int, int]) -> None:
        """Keep the picture of a plane if it is among those to show so far."""
        self._pictures_offered += 1
        row = self._rows[number]
        candidate = _Candidate(number, row.expected_level, row.certainty)
        # All groups are asked, not just up to the first that wants it.
        wanted = [group.offer(candidate) for group in self._groups]
        if any(wanted):
            # The page has a key of its own.
            height = min(len(overlay), round(size_px[0] * overlay.shape[1] / size_px[1]))
            picture = shrunk(overlay[:height], _PICTURE_PX)
            candidate.jpeg, candidate.size_px = _jpeg(picture), (picture.shape[1], picture.shape[0])

    def _html(self, folder: Path, excluded: Sequence[Mapping[str, str]]) -> str:
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(
                [jinja2.PackageLoader("focusqc", "templates"), jinja2.PackageLoader("lincei", "templates")]
            ),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["counted"] = _counted
        script = environment.get_template("focus_page.js").render()
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        prefix = _common_folder([row.file for row in self._rows] + [file for file, _ in self._failures])
        cards = self._cards(prefix)
        data = {
            "colors": [
                ["#{:02x}{:02x}{:02x}".format(*level_color(level, step / 20)) for step in range(21)]
                for level in range(LEVELS)
            ],
            "stacks": [[stack.first, stack.planes] for stack in self._stacks],
            "images": self._image_table(folder, prefix, cards),
            "excluded": _excluded_table(excluded, prefix),
            "failures": _table(
                [("file", "text"), ("what went wrong", "text")],
                [[file.removeprefix(prefix), reason] for file, reason in self._failures],
            ),
            # By row, for the curves of stacks.
            "planes": [
                [
                    row.file.removeprefix(prefix),
                    row.channel,
                    row.time,
                    row.z,
                    row.expected_level,
                    row.certainty,
                    row.sharpest == "yes",
                ]
                for row in (self._rows if self._stacks else [])
            ],
        }
        html = environment.get_template("focus_page.html").render(
            title=self.title,
            lead=self._lead(),
            facts=self._facts(prefix),
            shares=self._shares(),
            histograms=self._histograms(),
            key_colors=[_hex(level, 1.0) for level in range(LEVELS)],
            ramp=[[_hex(level, step / 10) for step in range(11)] for level in (0, LEVELS // 2, LEVELS - 1)],
            excluded=len(excluded),
            failures=len(self._failures),
            stacks=len(self._stacks),
            planes=len(self._rows),
            cards=cards,
            montage_text=self._montage_text(len(cards)),
            last_level=LAST_LEVEL_IN_FOCUS,
            least_certainty=LEAST_CERTAINTY,
            digest=digest,
            versions={
                "lincei": __version__,
                "Python": platform.python_version(),
                **_model(self._provenance),
            },
            # What follows is put in as it is: "<" is the only character that could end a script early.
            data=_unescaped(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),
            script=_unescaped(script),
        )
        return html

    def _cards(self, prefix: str) -> list[dict[str, Any]]:
        """Return what is shown of each picture, the sharpest first."""
        chosen = {candidate.row: candidate for group in self._groups for candidate in group.kept()}
        cards = []
        for candidate in sorted(chosen.values(), key=lambda c: (c.level, c.row)):
            row = self._rows[candidate.row]
            cards.append(
                {
                    "row": candidate.row,
                    "name": _plane_name(row, prefix),
                    "short": _plane_name(row, row.file[: len(row.file) - len(_file_name(row.file))]),
                    "level": candidate.level,
                    "certainty": candidate.certainty,
                    "in_focus": row.in_focus,
                    "note": row.note,
                    "color": _hex(candidate.level, 1.0),
                    "width": candidate.size_px[0],
                    "height": candidate.size_px[1],
                    "picture": base64.b64encode(candidate.jpeg).decode("ascii"),
                }
            )
        return cards

    def _image_table(self, folder: Path, prefix: str, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the table of all planes, without the columns that say nothing here."""
        columns = [
            column
            for column in _COLUMNS
            if column[1] in _ALWAYS_SHOWN
            or len({getattr(row, column[1]) for row in self._rows}) > 1
            or (column[1] in ("note", "defocus_um") and any(getattr(row, column[1]) for row in self._rows))
        ]
        shown = {card["row"] for card in cards}
        with_pictures = bool(shown or self._links)
        rows = []
        for number, row in enumerate(self._rows):
            values = [getattr(row, name) for _, name, _ in columns]
            values[0] = row.file.removeprefix(prefix)
            link = self._links.get(number)
            if with_pictures:
                values.append([_address(link, folder) if link else "", number if number in shown else -1])
            rows.append(values)
        header = [(title, kind) for title, _, kind in columns]
        return _table([*header, *([("overlay", "overlay")] if with_pictures else [])], rows)

    def _counted_rows(self) -> list[_Row]:
        """Return the rows that say whether an image is in focus: of a focal series one."""
        return [self._rows[number] for number in self._deciding]

    def _lead(self) -> str:
        if not self._rows:
            return "No image was rated."
        what = _counted(self._images, "image")
        if len(self._deciding) != self._images:
            what += f" ({_counted(len(self._deciding), 'time point or channel', 'time points and channels')})"
        found = [f"{share['count']:,} {share['words']}" for share in self._shares() if share["count"]]
        text = f"{what} rated: {', '.join(found)}."
        if self._failures:
            text += f" {_counted(len(self._failures), 'file')} could not be rated."
        return text

    def _facts(self, prefix: str) -> list[str]:
        """Return sentences about the whole folder."""
        facts = []
        if self._rows:
            levels = np.array([row.expected_level for row in self._counted_rows()])
            certainties = np.array([row.certainty for row in self._counted_rows()])
            low, median, high = np.percentile(levels, [25, 50, 75])
            facts.append(
                f"The median of the expected levels is {median:.1f}, and half of them lie between {low:.1f} "
                f"and {high:.1f}. The median certainty is {np.median(certainties):.2f}."
            )
        if self._stacks:
            named = sum(
                any(row.sharpest == "yes" for row in self._rows[stack.first : stack.first + stack.planes])
                for stack in self._stacks
            )
            planes, unnamed = sum(stack.planes for stack in self._stacks), len(self._stacks) - named
            text = (
                f"{_counted(len(self._stacks), 'focal series', 'focal series')} with {planes:,} planes: of "
                "each the sharpest plane is counted here."
            )
            if unnamed:
                text += f" In {unnamed:,} no plane is certain enough, and the middle one is counted."
            facts.append(text)
        if prefix:
            facts.append(f"All files are in {prefix}")
        return facts

    def _shares(self) -> list[dict[str, Any]]:
        """Return how many are in focus, are not, or say nothing."""
        counts = Counter(row.in_focus for row in self._counted_rows())
        verdicts = (("yes", "in focus"), ("no", "out of focus"), ("uncertain", "uncertain"))
        return [
            {
                "verdict": verdict,
                "words": words,
                "count": counts[verdict],
                "percent": 100 * counts[verdict] / max(1, len(self._deciding)),
            }
            for verdict, words in verdicts
        ]

    def _histograms(self) -> list[dict[str, Any]]:
        predicted = np.array([row.predicted_level for row in self._counted_rows()], float)
        expected = np.array([row.expected_level for row in self._counted_rows()], float)
        certain = np.array([row.certainty for row in self._counted_rows()], float)
        halves, twentieths = np.linspace(0, LEVELS - 1, 21), np.linspace(0, 1, 21)
        return [
            _histogram(
                "Predicted level",
                "The most likely level; 0 is sharp, 10 is blurred.",
                predicted,
                np.arange(LEVELS + 1) - 0.5,
                [(_hex(level, 1.0), f"level {level}") for level in range(LEVELS)],
                [(level + 0.5, str(level)) for level in range(LEVELS)],
            ),
            _histogram(
                "Expected level",
                "The mean of the levels' probabilities.",
                expected,
                halves,
                [
                    (_hex((low + high) / 2, 1.0), f"from {low:g} to {high:g}")
                    for low, high in itertools.pairwise(halves)
                ],
                [(2 * level, str(level)) for level in range(0, LEVELS, 2)],
            ),
            _histogram(
                "Certainty",
                f"Below {LEAST_CERTAINTY:g} a rating says nothing about the image.",
                certain,
                twentieths,
                [
                    (_hex(LEVELS // 2, (low + high) / 2), f"from {low:.2f} to {high:.2f}")
                    for low, high in itertools.pairwise(twentieths)
                ],
                [(20 * tick, f"{tick:g}") for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0)],
            ),
        ]

    def _montage_text(self, cards: int) -> str:
        if not cards:
            return ""
        stacks = " Of a focal series, the sharpest plane is shown." if self._stacks else ""
        if cards == self._pictures_offered:
            return "All are shown. Click on one to see it larger." + stacks
        return (
            f"{cards} of {self._pictures_offered:,} are shown: the sharpest, the most blurred, the least "
            "certain, and some with levels spread between them. The table at the end lists all. Click on one "
            "to see it larger." + stacks
        )


def rating_section(
    title: str,
    text: Sequence[str],
    rated: Sequence[tuple[str, RGB, PlaneRating]],
    *,
    notes: Sequence[str] = (),
    columns: int = 4,
) -> Section:
    """Return a section of a report page: overlays ranked from sharp to blurred, and their ratings as a table.

    Parameters
    ----------
    title : str
        Its heading.
    text : sequence of str
        Paragraphs above the pictures.
    rated : sequence of (str, ndarray of uint8 of shape (Y, X, 3), PlaneRating)
        Name, overlay (see `focusqc.overlay.overlay_rgb`) and rating of each plane.
    notes : sequence of str
        Cautions below.
    columns : int
        Pictures in a row.
    """
    ranked = sorted(rated, key=lambda item: item[2].expected_level)
    figures = tuple(
        Figure(
            overlay,
            f"{name}: level {rating.expected_level:.1f}, certainty {rating.certainty_weighted:.2f}",
            alt=f"{name}, with a border in every patch: hue is the level, lightness the certainty",
        )
        for name, overlay, rating in ranked
    )
    rows = tuple(
        (
            name,
            rating.predicted_level,
            rating.expected_level,
            rating.certainty_weighted,
            rating.in_focus,
        )
        for name, _, rating in ranked
    )
    header = ("image", "level", "expected level", "certainty", "in focus")
    return Section(
        title, tuple(text), figures, (Table(header, rows, "From sharp to blurred"),), tuple(notes), columns
    )


def curve_figure(rating: FocusRating, caption: str, *, time: int = 0, channel: int = 0) -> Figure:
    """Return the expected level over z, with the sharpest plane marked, as a figure of a report page.

    Parameters
    ----------
    rating : FocusRating
        Of a focal series.
    caption : str
        Shown below.
    time, channel : int
        Which series.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    planes = [plane for plane in rating.planes if (plane.time, plane.channel) == (time, channel)]
    zs, levels = [plane.z for plane in planes], [plane.expected_level for plane in planes]
    colors = [_hex(plane.expected_level, plane.certainty_weighted) for plane in planes]
    # Without pyplot, which would keep the figure and want a screen.
    plot = Plot(figsize=(3.6, 3.6), dpi=200, layout="constrained")
    axes = plot.add_subplot()
    axes.plot(zs, levels, color="0.6", linewidth=1.2, zorder=1)
    axes.scatter(zs, levels, c=colors, s=42, zorder=2)
    best = rating.sharpest.get((time, channel))
    if best is not None:
        axes.axvline(best, color="0.3", linestyle="--", linewidth=1)
        axes.annotate(f"sharpest: z = {best}", (best, 9.6), (6, 0), textcoords="offset points", va="center")
    axes.set(xlabel="z", ylabel="expected level (0 sharp, 10 blurred)", ylim=(-0.3, LEVELS - 1 + 0.3))
    axes.spines[["top", "right"]].set_visible(False)
    canvas = FigureCanvasAgg(plot)
    canvas.draw()
    return Figure(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]), caption)


def _row(values: Mapping[str, Any]) -> _Row:
    """Return what the table says of a plane, numbers rounded to what is shown and sorted by."""
    defocus = values["defocus_um"]
    return _Row(
        file=str(values["file"]),
        time=int(values["time"]),
        channel=str(values["channel"]),
        z=int(values["z"]),
        predicted_level=int(values["predicted_level"]),
        expected_level=round(float(values["expected_level"]), 3),
        certainty=round(float(values["certainty_weighted"]), 3),
        certainty_mean=round(float(values["certainty_mean"]), 3),
        in_focus=str(values["in_focus"]),
        defocus_um=None if defocus is None else round(float(defocus), 2),
        sharpest=str(values["sharpest"]),
        note=str(values["note"]),
    )


def _jpeg(picture: RGB) -> bytes:
    from PIL import Image as Picture

    buffer = io.BytesIO()
    # Without subsampling: it would wash out the colors of thin borders.
    Picture.fromarray(np.ascontiguousarray(picture)).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True
    )
    return buffer.getvalue()


def _histogram(
    title: str,
    caption: str,
    values: NDArray[np.float64],
    edges: NDArray[np.floating[Any]],
    bars: Sequence[tuple[str, str]],
    ticks: Sequence[tuple[float, str]],
) -> dict[str, Any]:
    """Return a histogram as it is drawn: bars of unit width and heights from 0 to 1."""
    counts = np.histogram(values, edges)[0]
    tallest = max(1, int(counts.max(initial=0)))
    return {
        "title": title,
        "caption": caption,
        "bars": [
            {"count": int(count), "height": float(count) / tallest, "color": color, "name": name}
            for count, (color, name) in zip(counts, bars, strict=True)
        ],
        "ticks": [{"place": place / len(bars), "text": text} for place, text in ticks],
        "tallest": tallest,
    }


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {"columns": [list(column) for column in columns], "rows": rows}


def _excluded_table(excluded: Sequence[Mapping[str, str]], prefix: str) -> dict[str, Any]:
    names = [
        name
        for name in ("file", "time", "channel", "z", "reason")
        if name in ("file", "reason") or len({str(row[name]) for row in excluded}) > 1
    ]
    kinds = {"time": "number", "z": "number"}
    rows = []
    for row in excluded:
        values: list[Any] = [str(row[name]) for name in names]
        values[0] = values[0].removeprefix(prefix)
        rows.append(values)
    return _table([(name, kinds.get(name, "text")) for name in names], rows)


def _model(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the model that a rating names, for the footer."""
    model = provenance.get("model")
    if isinstance(model, Mapping):
        name, version = str(model.get("name", "")), str(model.get("version", ""))
        return {f"model {name}": version} if name else {}
    return {"model": str(model)} if model else {}


def _common_folder(files: Sequence[str]) -> str:
    """Return the folder that all names begin with, with its separator; empty where there is none."""
    # Not commonpath: names may be those of another system, and need not be paths at all.
    first, last = (min(files), max(files)) if files else ("", "")
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(letter for letter, _ in same)
    cut = max(prefix.rfind("/"), prefix.rfind("\\")) + 1
    return prefix[:cut]


def _file_name(file: str) -> str:
    return file[max(file.rfind("/"), file.rfind("\\")) + 1 :]


def _plane_name(row: _Row, prefix: str) -> str:
    """Return a file's name, and which plane of it where it has several."""
    parts = [row.file.removeprefix(prefix)]
    if row.channel not in ("", "0"):
        parts.append(row.channel)
    if row.time:
        parts.append(f"time {row.time}")
    if row.z or row.sharpest:
        parts.append(f"z {row.z}")
    return ", ".join(parts)


def _address(link: Path, folder: Path) -> str:
    """Return an address of a file as the page, in ``folder``, links it."""
    try:
        relative = Path(os.path.relpath(link, folder))
    except ValueError:
        # On another drive.
        return link.resolve().as_uri()
    return urllib.parse.quote(relative.as_posix())


def _hex(level: float, certainty: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*level_color(level, certainty))


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def _unescaped(text: str) -> Any:
    import markupsafe

    return markupsafe.Markup(text)
