"""What the tables of a batch promise: rows, order, numbers, and nothing lost when something goes wrong."""

from __future__ import annotations

import csv
import errno
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import focusqc.tables
from focusqc.levels import Optics
from focusqc.rating import IMAGE_COLUMNS, PATCH_COLUMNS, FocusRating, PlaneRating
from focusqc.tables import EXCLUDE_COLUMNS, FocusTables, deciding_planes, exclude_rows
from lincei.errors import LinceiError

SHARP, BLURRED, EVEN = (
    np.eye(11, dtype=np.float32)[0],
    np.eye(11, dtype=np.float32)[7],
    np.full(11, 1 / 11, np.float32),
)


def plane(probabilities: Any, **fields: Any) -> PlaneRating:
    """Return the rating of a plane of 2 x 3 patches that are all alike."""
    values = {"time": 0, "channel": 0, "z": 0, "channel_name": "DAPI", **fields}
    patches = np.broadcast_to(probabilities, (2, 3, 11))
    return PlaneRating(y=(0, 84), x=(0, 84, 100), patch_px=(84, 84), probabilities=patches, **values)


def rating(*planes: PlaneRating, file: str = "a.tif", **fields: Any) -> FocusRating:
    return FocusRating(name="a", file=file, planes=planes, size_px=(168, 184), **fields)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def random_rating(seed: int, file: str, **fields: Any) -> FocusRating:
    random = np.random.default_rng(seed)
    planes = []
    for z in range(3):
        values = random.dirichlet(np.full(11, 0.2), size=(2, 3)).astype(np.float32)
        planes.append(
            PlaneRating(0, 0, z, "DAPI", (0, 84), (0, 84, 100), (84, 84), values, notes=("a", 'b "c", d'))
        )
    return rating(*planes, file=file, **fields)


class TestFiles:
    def test_what_is_written_is_what_the_python_tables_hold(self, tmp_path: Path):
        ratings = [
            random_rating(1, "plate/a.tif"),
            random_rating(2, "plate/b, c.tif", optics=Optics(0.65, 0.5)),
        ]
        with FocusTables(tmp_path) as tables:
            for item in ratings:
                tables.add(item)
        for name, patches in (("images.csv", False), ("patches.csv", True)):
            expected = pd.concat([item.to_dataframe(patches=patches).astype(object) for item in ratings])
            found = pd.read_csv(tmp_path / name)
            assert list(found.columns) == list(expected.columns)
            assert len(found) == len(expected)
            for column in expected.columns:
                right = found[column]
                left = expected[column].map(lambda value: np.nan if value in ("", None) else value)
                if pd.api.types.is_numeric_dtype(right):
                    np.testing.assert_allclose(
                        left.astype(float), right.astype(float), rtol=1e-5, atol=1e-30, equal_nan=True
                    )
                else:
                    assert list(left) == list(right), column

    def test_columns_are_those_that_the_package_names(self, tmp_path: Path):
        with FocusTables(tmp_path) as tables:
            tables.add(rating(plane(SHARP)))
        for name, columns in (
            ("images.csv", IMAGE_COLUMNS),
            ("patches.csv", PATCH_COLUMNS),
            ("exclude.csv", EXCLUDE_COLUMNS),
        ):
            assert (tmp_path / name).read_text("utf-8").partition("\n")[0] == ",".join(columns)
        assert EXCLUDE_COLUMNS == ("file", "time", "channel", "z", "reason")

    def test_numbers_have_six_digits_at_most_and_the_same_input_gives_the_same_bytes(self, tmp_path: Path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            with FocusTables(tmp_path / name) as tables:
                tables.add(random_rating(1, "a.tif", optics=Optics(0.65, 0.5)))
        for name in ("images.csv", "patches.csv", "exclude.csv"):
            content = (tmp_path / "one" / name).read_bytes()
            assert content == (tmp_path / "two" / name).read_bytes()
        for row in rows_of(tmp_path / "one" / "patches.csv"):
            for text in (row["p03"], row["certainty"], row["defocus_um"]):
                digits = text.split("e")[0].replace(".", "").lstrip("0")
                assert len(digits) <= 6, text

    def test_rows_of_an_image_are_on_the_disk_before_the_next_image(self, tmp_path: Path):
        with FocusTables(tmp_path) as tables:
            tables.add(random_rating(1, "a.tif"))
            (unfinished,) = tmp_path.glob(".patches.csv.*")
            assert len(rows_of(unfinished)) == 18
            assert not (tmp_path / "patches.csv").exists()
        assert len(rows_of(tmp_path / "patches.csv")) == 18
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "exclude.csv",
            "images.csv",
            "patches.csv",
        ]

    def test_names_that_are_no_text_are_written_all_the_same(self, tmp_path: Path):
        with FocusTables(tmp_path) as tables:
            tables.add(rating(plane(SHARP), file="a\udcff,\n.tif"))
        assert rows_of(tmp_path / "images.csv")[0]["file"] == "a\\udcff,\n.tif"

    def test_many_patches_are_written_a_part_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(focusqc.tables, "_ROWS_AT_A_TIME", 4)
        with FocusTables(tmp_path) as tables:
            tables.add(random_rating(1, "a.tif"))
        assert [(row["z"], row["row"], row["column"]) for row in rows_of(tmp_path / "patches.csv")] == [
            (str(z), str(row), str(column)) for z in range(3) for row in range(2) for column in range(3)
        ]


class TestTrouble:
    def test_what_was_rated_is_kept_when_the_batch_breaks_off(self, tmp_path: Path):
        tables = FocusTables(tmp_path)
        tables.add(rating(plane(SHARP), file="a.tif"))
        tables.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert [row["file"] for row in rows_of(tmp_path / "images.csv")] == ["a.tif"]

    def test_a_full_disk_leaves_whole_images_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with FocusTables(tmp_path) as tables:
            tables.add(random_rating(1, "a.tif"))
            size = tables._tables[1].size
            table = tables._tables[1]
            real = table._file

            class NearlyFull:
                """Takes a part of what is written, and then nothing more."""

                def write(self, content: Any) -> int:
                    room = size + 500 - real.tell()
                    if room <= 0:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return real.write(content[:room])

                def __getattr__(self, name: str) -> Any:
                    return getattr(real, name)

            monkeypatch.setattr(table, "_file", NearlyFull())
            with pytest.raises(LinceiError, match="no space is left on the disk"):
                tables.add(random_rating(2, "b.tif"))
            assert real.tell() == size
        for name in ("images.csv", "patches.csv", "exclude.csv"):
            assert {row["file"] for row in rows_of(tmp_path / name)} <= {"a.tif"}
        assert len(rows_of(tmp_path / "patches.csv")) == 18
        assert {row["file"] for row in tables.excluded} <= {"a.tif"}

    def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(self, tmp_path: Path):
        with pytest.raises(LinceiError, match=r"images\.csv"):
            FocusTables(tmp_path / "missing")
        (tmp_path / "exclude.csv").mkdir()
        with pytest.raises(LinceiError, match=r"exclude\.csv: a file or folder is in the way"):
            FocusTables(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["exclude.csv"]

    def test_an_older_table_is_replaced_only_by_a_complete_one(self, tmp_path: Path):
        (tmp_path / "images.csv").write_text("older", "utf-8")
        with FocusTables(tmp_path) as tables:
            tables.add(rating(plane(SHARP)))
            assert (tmp_path / "images.csv").read_text("utf-8") == "older"
        assert len(rows_of(tmp_path / "images.csv")) == 1

    def test_older_tables_stay_when_nothing_is_rated_unless_several_images_failed(self, tmp_path: Path):
        names = ("images.csv", "patches.csv", "exclude.csv")
        for name in names:
            (tmp_path / name).write_text("older", "utf-8")
        for failures in (0, 1):
            with FocusTables(tmp_path) as tables:
                for _ in range(failures):
                    tables.add_failure("a.tif", LinceiError("it is gone"))
            assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
            assert all((tmp_path / name).read_text("utf-8") == "older" for name in names)
        with FocusTables(tmp_path) as tables:
            for file in ("a.tif", "b.tif"):
                tables.add_failure(file, LinceiError("it is gone"))
        assert rows_of(tmp_path / "images.csv") == []
        assert len(rows_of(tmp_path / "exclude.csv")) == 2


class TestExclude:
    def test_what_is_in_focus_is_not_listed(self):
        assert exclude_rows(rating(plane(SHARP))) == []

    def test_what_is_out_of_focus_is_listed_with_its_level_and_distance(self):
        (row,) = exclude_rows(rating(plane(BLURRED, z=2)))
        assert row == {
            "file": "a.tif",
            "time": "0",
            "channel": "DAPI",
            "z": "2",
            "reason": "out of focus: expected level 7.0",
        }
        (row,) = exclude_rows(rating(plane(BLURRED), optics=Optics(0.65, 0.5)))
        assert row["reason"] == "out of focus: expected level 7.0, about 14 um from focus"

    def test_a_distance_that_the_optics_hide_is_not_given(self):
        (row,) = exclude_rows(rating(plane(np.eye(11)[10]), optics=Optics(0.05, 0.3)))
        assert row["reason"] == "out of focus: expected level 10.0"

    def test_what_is_left_out_as_blurred_is_not_called_level_zero(self):
        # Half of the field is sharp, the other half blurred by different amounts: a tilted slide.
        patches = np.full((1, 9, 11), 0.001, np.float32)
        for column, level in enumerate((0, 0, 0, 0, 4, 5, 6, 7, 8)):
            patches[0, column, level] = 0.99
        tilted = PlaneRating(0, 0, 0, "0", (0,), tuple(range(0, 756, 84)), (84, 84), patches)
        assert (tilted.predicted_level, tilted.in_focus) == (0, "no")
        (row,) = exclude_rows(FocusRating("a", "a.tif", (tilted,), (84, 756)))
        assert row["reason"] == f"out of focus: expected level {tilted.expected_level:.1f}"
        assert tilted.expected_level > 3

    def test_what_is_uncertain_is_listed_with_the_reason(self):
        (row,) = exclude_rows(rating(plane(EVEN, notes=("all black: every pixel is 0",))))
        assert row["reason"] == "uncertain: all black: every pixel is 0"
        (row,) = exclude_rows(rating(plane(EVEN)))
        assert row["reason"] == "uncertain: it shows too little to tell"

    def test_of_a_stack_only_the_sharpest_plane_decides_for_each_time_and_channel(self):
        planes = [
            plane(p, time=t, channel=c, z=z, channel_name=name)
            for t, c, name, stack in (
                (0, 0, "DAPI", (BLURRED, SHARP, EVEN)),
                (0, 1, "GFP", (EVEN, np.eye(11)[9], BLURRED)),
                (1, 0, "DAPI", (EVEN, EVEN, EVEN)),
                (1, 1, "GFP", (SHARP, SHARP, SHARP)),
            )
            for z, p in enumerate(stack)
        ]
        whole = rating(*planes)
        assert [(p.time, p.channel, p.z) for p in deciding_planes(whole)] == [
            (0, 0, 1),
            (0, 1, 2),
            (1, 0, 1),
            (1, 1, 0),
        ]
        rows = exclude_rows(whole)
        assert [(row["time"], row["channel"], row["z"]) for row in rows] == [
            ("0", "GFP", "2"),
            ("1", "DAPI", "1"),
        ]
        assert rows[0]["reason"] == "out of focus: expected level 7.0; the sharpest of its stack"
        assert rows[1]["reason"].startswith("uncertain: no plane of its stack tells")

    def test_files_that_failed_are_listed_with_the_sentence(self, tmp_path: Path):
        with FocusTables(tmp_path) as tables:
            tables.add_failure("b.tif", LinceiError("the file is empty (0 bytes)", "/data/b.tif", "Copy it."))
            tables.add_failure("c.tif", LinceiError("it is gone", "c.tif"))
        rows = rows_of(tmp_path / "exclude.csv")
        assert [row["file"] for row in rows] == ["b.tif", "c.tif"]
        assert rows[0]["reason"] == "/data/b.tif: the file is empty (0 bytes). Copy it."
        assert rows[1]["reason"] == "it is gone."
        assert rows == tables.excluded
