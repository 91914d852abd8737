"""What `lincei.options` promises."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lincei.errors import UsageError
from lincei.options import Options, flag_name, option, resolve_options


@dataclass(frozen=True)
class Knobs(Options):
    """Options with a field of every kind."""

    count: int = option(3, "How many.", minimum=1, maximum=10)
    pixel_size_um: float | None = option(None, "Pixel size.", unit="um", above=0)
    colors: tuple[str, ...] = option(["red"], "Which colors.", choices=("red", "green"))
    thresholds: tuple[float, ...] = option((), "Levels.", minimum=0)
    mode: str | None = option(None, "How.", choices=("fast", "good"))
    quiet: bool = option(False, "Say nothing.")


class TestValues:
    def test_defaults_are_valid_and_lists_are_kept_as_tuples(self):
        assert Knobs() == Knobs(count=3, colors=("red",))
        assert Knobs(colors=["green", "red"]).colors == ("green", "red")

    def test_they_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Knobs().count = 4  # type: ignore[misc]

    @pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.float64(2), np.int64(2)])
    def test_any_number_is_a_number(self, value: Any):
        found = Knobs(pixel_size_um=value).pixel_size_um
        assert found == 2
        assert type(found) is float

    @pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
    def test_any_whole_number_is_a_whole_number(self, value: Any):
        found = Knobs(count=value).count
        assert found == 2
        assert type(found) is int

    def test_every_element_of_a_list_is_taken_as_its_kind(self):
        assert Knobs(thresholds=[1, np.float32(0.5)]).to_json()["thresholds"] == [1.0, 0.5]

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"count": 2.5}, ["--count", "whole number", "2.5"]),
            ({"count": True}, ["--count", "whole number", "True"]),
            ({"count": "4"}, ["--count", "whole number", "'4'"]),
            ({"count": None}, ["--count", "whole number"]),
            ({"count": 0}, ["--count is 0", "at least 1 and at most 10"]),
            ({"count": 11}, ["--count is 11", "at most 10"]),
            ({"pixel_size_um": "0.5"}, ["--pixel-size-um", "needs a number", "'0.5'"]),
            ({"pixel_size_um": True}, ["--pixel-size-um", "needs a number"]),
            ({"pixel_size_um": 0}, ["--pixel-size-um is 0", "above 0"]),
            ({"pixel_size_um": -1}, ["--pixel-size-um is -1", "above 0"]),
            ({"pixel_size_um": float("nan")}, ["--pixel-size-um is nan", "must be a number"]),
            ({"colors": "red"}, ["--colors", "needs a list", "'red'"]),
            ({"colors": ("red", "blue")}, ["--colors", "'blue'", "red, green"]),
            ({"colors": (1,)}, ["--colors", "text", "1"]),
            ({"thresholds": (1, -1)}, ["--thresholds is -1", "at least 0"]),
            ({"thresholds": ("a",)}, ["--thresholds", "needs a number", "'a'"]),
            ({"mode": "slow"}, ["--mode", "'slow'", "fast, good"]),
            ({"mode": 3}, ["--mode", "text"]),
            ({"quiet": 1}, ["--quiet", "true or false", "1"]),
        ],
    )
    def test_a_wrong_one_is_refused_by_flag_value_and_what_is_allowed(
        self, wrong: dict[str, Any], words: list[str]
    ):
        with pytest.raises(UsageError) as caught:
            Knobs(**wrong)
        for word in words:
            assert word in str(caught.value)


class TestNames:
    def test_a_misspelled_name_is_refused_with_the_near_one(self):
        with pytest.raises(UsageError, match=r"'pixel_size'.*Did you mean 'pixel_size_um'"):
            Knobs.from_mapping({"pixel_size": 1})

    def test_a_foreign_name_is_refused_with_all_there_are(self):
        with pytest.raises(UsageError, match=r"'zzz'.*count, pixel_size_um, colors, thresholds, mode, quiet"):
            Knobs.from_mapping({"zzz": 1})

    def test_a_flag_is_spelled_with_hyphens(self):
        assert flag_name("pixel_size_um") == "--pixel-size-um"

    def test_a_front_end_finds_all_it_needs_to_offer_a_field(self):
        fields = {field.name: field for field in dataclasses.fields(Knobs)}
        assert fields["pixel_size_um"].metadata["unit"] == "um"
        assert fields["mode"].metadata["choices"] == ("fast", "good")
        assert all(field.metadata["help"].endswith(".") for field in fields.values())


class TestJson:
    @settings(max_examples=40, deadline=None)
    @given(
        count=st.integers(1, 10),
        size=st.none() | st.floats(1e-6, 1e6),
        colors=st.lists(st.sampled_from(["red", "green"])),
        thresholds=st.lists(st.floats(0, 1e6)),
        quiet=st.booleans(),
    )
    def test_there_and_back_gives_equal_options_and_hashes(
        self, count: int, size: float | None, colors: list[str], thresholds: list[float], quiet: bool
    ):
        knobs = Knobs(count=count, pixel_size_um=size, colors=colors, thresholds=thresholds, quiet=quiet)
        back = Knobs.from_mapping(json.loads(json.dumps(knobs.to_json())))
        assert back == knobs
        assert back.hash() == knobs.hash()

    def test_numpys_numbers_are_jsonable(self):
        assert (
            json.loads(json.dumps(Knobs(count=np.int64(2), pixel_size_um=np.float64(0.5)).to_json()))["count"]
            == 2
        )

    def test_different_options_have_different_hashes(self):
        others = [Knobs(count=4), Knobs(quiet=True), Knobs(colors=()), Knobs(pixel_size_um=1), Knobs()]
        assert len({knobs.hash() for knobs in others}) == len(others)

    def test_the_hash_is_the_same_in_another_process(self):
        program = "from insilico.options import LabelOptions as L; print(L(labels=('DAPI',)).hash())"
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        from insilico.options import LabelOptions

        assert found.stdout.strip() == LabelOptions(labels=("DAPI",)).hash()


class TestResolving:
    def test_keywords_go_before_options_and_options_before_defaults(self):
        base = Knobs(count=5, mode="fast")
        assert resolve_options(Knobs, base, {"count": 6}) == Knobs(count=6, mode="fast")
        assert resolve_options(Knobs, None, {}) == Knobs()
        assert resolve_options(Knobs, base, {}) == base

    def test_keywords_are_checked(self):
        with pytest.raises(UsageError, match="--count is 99"):
            resolve_options(Knobs, Knobs(), {"count": 99})
        with pytest.raises(UsageError, match="no option 'counts'"):
            resolve_options(Knobs, None, {"counts": 9})

    def test_options_of_another_job_are_refused(self):
        @dataclass(frozen=True)
        class Others(Options):
            """Another job's."""

        with pytest.raises(TypeError, match="must be Knobs, not Others"):
            resolve_options(Knobs, Others(), {})  # type: ignore[type-var]
