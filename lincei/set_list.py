"""A list of sets to train on, as a TOML file: what the trainers that learn from several sets share."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lincei.errors import LinceiError


def read_set_list(file: Path, *, page: str, tables: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file whose ``[[set]]`` entries each describe a set.

    Parameters
    ----------
    file : Path
        The file.
    page : str
        The page of the documents that explains it, for the sentences.
    tables : sequence of str
        Other tables that it may hold.

    Returns
    -------
    dict of str to object
        What it holds; ``"set"`` is a list with at least one entry.

    Raises
    ------
    LinceiError
        When it is not there, is no TOML, holds something else, or no set.
    """
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise LinceiError("there is no such file", str(file), "Name the TOML file with the sets.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LinceiError(
            f"the list of sets cannot be read ({error})", str(file), f"Correct it; see {page}."
        ) from error
    entries = content.get("set")
    begin = f"Begin each set with a line [[set]]; see {page}."
    if unknown := sorted(set(content) - {"set", *tables}):
        allowed = " and ".join(["[[set]]", *(f"[{name}]" for name in tables)])
        raise LinceiError(f"there is no entry {unknown[0]!r} outside {allowed}", str(file), begin)
    if not isinstance(entries, list) or not entries:
        raise LinceiError("there is no set in the list", str(file), begin)
    return content


def with_variables(text: str, where: str) -> str:
    """Return a pattern with variables such as ``$LINCEI_DATA`` filled in.

    Raises
    ------
    LinceiError
        When one is not set; ``where`` says where it stands.
    """
    filled = os.path.expandvars(text)
    if "$" in filled:
        raise LinceiError(f"the variable in {text!r} is not set", where, "Set it, or write the path.")
    return filled
