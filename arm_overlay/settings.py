"""The settings file of ``lincei arm``: TOML with the names of the flags, for start-up without a keyboard.

Flags win over the file. The tables and their keys are the fields of `ArmOptions`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arm_overlay.options import LiveOptions
from arm_overlay.recording import RECORD_FORMATS
from lincei.errors import UsageError
from lincei.image import readable_errors
from lincei.options import flag_name, option

_EXAMPLE = Path(__file__).with_name("arm_files") / "arm.toml"
_LIVE = tuple(field.name for field in dataclasses.fields(LiveOptions))


@dataclass(frozen=True)
class ArmOptions(LiveOptions):
    """Options of ``lincei arm``: those of `LiveOptions`, the camera, the display and the records."""

    camera: str = option(
        "", "The camera, such as basler, usb:0 or simulated; `lincei arm cameras` lists those there are."
    )
    empty_field: str = option(
        "",
        "White balance and flat field: a file that `lincei arm empty-field` wrote; when left out, the one it "
        "wrote for this camera and objective.",
    )
    exposure_ms: float | None = option(
        None, "Exposure time to set; the camera's own when left out.", unit="ms", above=0
    )
    gain: float | None = option(
        None, "Gain to set, as the camera counts it; its own when left out.", minimum=0, advanced=True
    )
    display: str = option(
        "none",
        "The microdisplay in the eyepiece, by name, maker and model, or resolution; `lincei arm displays` "
        "lists those there are.",
    )
    brightness: float = option(1.0, "Brightness of the microdisplay.", above=0, maximum=1)
    field_of_view: tuple[float, ...] = option(
        (),
        "Circle outside which the microdisplay stays dark: x and y of its center and its diameter, as parts "
        "of width, height and shorter side, such as 0.5,0.5,0.9.",
    )
    line_width_px: int | None = option(
        None,
        "Width of outlines on the microdisplay; 1/360 of its height when left out.",
        unit="px",
        minimum=1,
        maximum=100,
        advanced=True,
    )
    record: str = option("", "Record the session into this folder, from the start.")
    record_format: str = option(
        "ome-zarr", "How sessions are recorded: the camera's own frames, or a video.", choices=RECORD_FORMATS
    )
    records: str = option(
        "",
        "Folder of snapshots, and of sessions recorded from the window; `lincei arm` in your documents when "
        "left out.",
    )
    seconds: float | None = option(
        None, "End after so long; runs until it is stopped when left out.", unit="s", above=0
    )
    stats: str = option("", "Write rates, times and latencies into this JSON file at the end.")
    window: bool = option(True, "Show the operator's window, where there is a screen.")

    def __post_init__(self) -> None:
        """Refuse what no flag can mean; write the objective as everything that belongs to it is stored."""
        super().__post_init__()
        if self.objective:
            object.__setattr__(self, "objective", _objective(self.objective))
        circle = self.field_of_view
        if len(circle) not in (0, 3):
            raise UsageError(
                f"--field-of-view has {len(circle)} number{'s' * (len(circle) != 1)}",
                "",
                "It needs three: x and y of the center and the diameter, as parts of width, height and "
                "shorter side.",
            )
        if circle and not 0 < circle[2] <= 10:
            raise UsageError(
                f"--field-of-view has the diameter {circle[2]:g}", "", "It must be above 0, at most 10."
            )

    def live(self) -> LiveOptions:
        """Return the options of `arm_overlay.LiveOutline` alone."""
        return LiveOptions(**{name: getattr(self, name) for name in _LIVE})


def _objective(text: str) -> str:
    # Imported on use: the command line is described without it.
    from arm_overlay.display_alignment import objective_name

    try:
        return objective_name(text)
    except UsageError as error:
        raise UsageError(f"--objective: {error.what}", "", error.what_to_do) from error


# Table of the file -> its keys.
TABLES: Mapping[str, tuple[str, ...]] = {
    "camera": ("camera", "empty_field", "exposure_ms", "gain"),
    "display": ("display", "brightness", "field_of_view", "line_width_px"),
    "live": _LIVE,
    "record": ("record", "record_format", "records"),
    "run": ("seconds", "stats", "window"),
}


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a settings file.

    Parameters
    ----------
    path : str or Path
        The TOML file.

    Returns
    -------
    dict
        Field of `ArmOptions` to its value; what the file does not name is not in it.

    Raises
    ------
    UsageError
        When it is no TOML, has an unknown table or key, or a wrong value: it names file, line and key, and
        what is allowed.
    LinceiError
        When it cannot be read.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = "this is a folder, not a settings file" if path.is_dir() else "there is no such settings file"
        raise UsageError(what, str(path), f"Check the path. An example to start from: {_EXAMPLE}")
    with readable_errors(path):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError("this is not UTF-8 text", f"{path}, line {line}", "Save it as UTF-8.") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, text, path) from error
    values: dict[str, Any] = {}
    for table, entries in tables.items():
        if table not in TABLES:
            raise _unknown_table(table, entries, text, path)
        if not isinstance(entries, dict):
            raise UsageError(
                f"{table} is {entries!r}, and it is a table",
                _where(path, _line_of(text, "", table)),
                f"Write [{table}] on a line of its own, and its settings below it.",
            )
        for key, value in entries.items():
            where = _where(path, _line_of(text, table, key))
            if key not in TABLES[table]:
                raise _unknown_key(table, key, where)
            values[key] = _checked(table, key, value, where)
    return values


def arm_options(settings: str | Path | None, flags: Mapping[str, Any]) -> ArmOptions:
    """Return the options of a settings file and of flags, which win.

    Parameters
    ----------
    settings : str or Path or None
        The file; None for none.
    flags : mapping
        Field to value, of the flags that were given.
    """
    return ArmOptions.from_mapping({**({} if settings is None else read_settings(settings)), **flags})


def _checked(table: str, key: str, value: Any, where: str) -> Any:
    """Return a value as the options hold it."""
    try:
        return getattr(ArmOptions.from_mapping({key: value}), key)
    except UsageError as error:
        what = error.what.replace(flag_name(key), f"[{table}] {key}")
        raise UsageError(what, where, error.what_to_do or _allowed(key)) from error


def _allowed(key: str) -> str:
    """Return what a key takes, in a sentence."""
    (field,) = (field for field in dataclasses.fields(ArmOptions) if field.name == key)
    kind = str(field.type)
    examples = (
        ("tuple", "Write numbers in brackets, such as [0.5, 0.5, 0.9]."),
        ("bool", "Write true or false, without quotes."),
        ("int", "Write a whole number, without quotes."),
        ("float", "Write a number, without quotes."),
    )
    for name, sentence in examples:
        if name in kind:
            return sentence
    return 'Write text in quotes, such as "20x".'


def _unknown_key(table: str, key: str, where: str) -> UsageError:
    what = f"there is no setting {key!r} in [{table}]"
    for other, keys in TABLES.items():
        if key in keys:
            return UsageError(what, where, f"It belongs into [{other}].")
    near = difflib.get_close_matches(key, TABLES[table], n=1)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return UsageError(what, where, f"{guess}There are: {', '.join(TABLES[table])}.")


def _unknown_table(table: str, entries: Any, text: str, path: Path) -> UsageError:
    where = _where(path, _line_of(text, "", table))
    if not isinstance(entries, dict):
        for other, keys in TABLES.items():
            if table in keys:
                return UsageError(
                    f"the setting {table!r} stands in no table", where, f"Write [{other}] on a line above it."
                )
    near = difflib.get_close_matches(table, TABLES, n=1)
    guess = f"Did you mean [{near[0]}]? " if near else ""
    what = f"there is no table [{table}]" if isinstance(entries, dict) else f"there is no setting {table!r}"
    return UsageError(what, where, f"{guess}The tables are: {', '.join(f'[{name}]' for name in TABLES)}.")


def _syntax_error(error: tomllib.TOMLDecodeError, text: str, path: Path) -> UsageError:
    """Return the sentence for a file that is no TOML."""
    at = re.search(r"\(at line (\d+), column \d+\)", str(error))
    line = int(at[1]) if at else text.count("\n") + 1
    reason = re.sub(r"\s*\(at .*\)", "", str(error))
    return UsageError(
        f"this is not TOML ({reason})",
        _where(path, line),
        'Text stands in quotes: display = "HDMI-2". On Windows write paths in single quotes, or with /.',
    )


def _where(path: Path, line: int | None) -> str:
    return str(path) if line is None else f"{path}, line {line}"


def _line_of(text: str, table: str, key: str) -> int | None:
    """Return the line of a key in a table (of the table itself for the table ""), counted from 1."""
    quoted = rf"[\"']?{re.escape(key)}[\"']?"
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*[\"']?([^\]\"']+?)[\"']?\s*\]+", line):
            current = header[1]
            if not table and (current == key or current.startswith(f"{key}.")):
                return number
            continue
        # A key in its table, or written with its table before any: live.mode = "text".
        spelled = quoted if current == table else rf"{re.escape(table)}\s*\.\s*{quoted}"
        if current in ("", table) and re.match(rf"\s*{spelled}\s*[.=]", line):
            return number
    return None
