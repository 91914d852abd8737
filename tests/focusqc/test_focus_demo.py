"""The demonstration of focus quality: on real data when it is there, on simulated cells otherwise."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import imageio.v3
import pytest

from focusqc import demo

LEVELS = [0, 2, 4, 6, 8, 10]


def rows_of(section: Any) -> dict[str, dict[str, Any]]:
    table = section.tables[0]
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_real_data_is_rated_and_every_overlay_is_a_file_too(
    real_data: Path, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(real_data))
    fields, series, known = sections = demo.run(tmp_path)
    assert [section.title for section in sections] == [
        "Focus quality",
        "Focus quality: a focal series",
        "Focus quality: known defocus",
    ]
    assert all(section.text[0].startswith("Real data: ") for section in sections)
    assert len(fields.figures) == len(rows_of(fields)) == 6
    assert "Research use only." in fields.notes[0]
    # The curve comes first, then three planes.
    assert 3 <= len(series.figures) <= 4
    assert sorted(rows_of(known)) == sorted(f"defocused at level {level}" for level in LEVELS)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 6 + 1 + 6
    text = " ".join(section.text[-1] for section in sections)
    assert all(name in text for name in written)
    assert imageio.v3.imread(tmp_path / "focus_beads.png").shape[1:] == (512, 3)


def test_without_real_data_simulated_cells_are_shown_and_said_to_be(
    stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "locate", lambda name, **more: None)
    [section] = demo.run(tmp_path)
    assert section.text[0].startswith("Simulated data: ")
    assert len(section.figures) == len(list(tmp_path.glob("focus_simulated_nuclei_level_*.png"))) == 6
    # More blur never looks sharper, not even to a rule as simple as the stand-in's.
    ranked = [row[0] for row in section.tables[0].rows]
    assert ranked[0] == "defocused at level 0"
    assert ranked[-1] == "defocused at level 10"


def test_the_shipped_model_shows_what_the_text_says(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINCEI_DATA", str(real_data))
    monkeypatch.setenv("LINCEI_MODELS", str(tmp_path / "no models of the user's"))
    with warnings.catch_warnings():
        # That the pixel size of a set is not stated is told elsewhere.
        warnings.simplefilter("ignore")
        fields, series, known = demo.run(tmp_path / "out")
    rated = rows_of(fields)
    for name, row in rated.items():
        level = row["expected level"]
        assert level < 3.5 if name.startswith("sharp") else level > 6, name
    ends = rows_of(series)
    best = min(ends, key=lambda name: ends[name]["expected level"])
    assert best in ("z = 3", "z = 4", "z = 5")
    found = [rows_of(known)[f"defocused at level {level}"]["expected level"] for level in LEVELS]
    assert found == sorted(found)
    assert max(abs(level - value) for level, value in zip(LEVELS, found, strict=True)) < 2
