"""Pairs from files: groups, what is kept for the test, and lists of sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from insilico.pair_files import open_pairs, open_sets
from lincei.errors import LinceiError, UsageError
from sample_data.cells import write_fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four fields of two strains: stack_a0, stack_a1, stack_b0, stack_b1."""
    folder = tmp_path_factory.mktemp("strains")
    write_fields(folder, 4, size_px=48, planes=1)
    for path in sorted(folder.glob("*.ome.tif")):
        kind, number = path.name.removesuffix(".ome.tif").split("_")
        path.rename(folder / f"{kind}_{'ab'[int(number) // 2]}{int(number) % 2}.ome.tif")
    return folder


def sets_file(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def of_strains(folder: Path, **more) -> list:
    pattern = "_{well}.ome.tif"
    return open_pairs(f"{folder}/stack{pattern}", [f"nuclei={folder}/nuclei{pattern}"], **more)


def test_pairs_are_put_into_groups_by_a_placeholder(folder):
    pairs = of_strains(folder, split_by="well")
    assert [pair.group for pair in pairs] == ["a0", "a1", "b0", "b1"]
    assert all(set(pair.labels) == {"nuclei"} for pair in pairs)


def test_a_group_or_an_image_is_kept_by_its_name(folder):
    by_group = of_strains(folder, split_by="well", test_on=["b0"], tune_on=["a1"])
    assert [pair.use for pair in by_group] == ["", "tune", "test", ""]
    by_name = of_strains(folder, test_on=["stack_b1"])
    assert [pair.use for pair in by_name] == ["", "", "", "test"]


def test_a_placeholder_that_is_not_there_is_named_with_those_that_are(folder):
    with pytest.raises(UsageError, match=r"no placeholder \{strain\} to split by.*There are: well"):
        of_strains(folder, split_by="strain")


def test_sets_are_opened_each_with_its_own_labels(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", str(folder))
    path = sets_file(
        tmp_path / "sets.toml",
        """
        [[set]]
        name = "strains"
        input = "$HERE/stack_{well}.ome.tif"
        split_by = "well"
        test_on = ["b0"]
        modality = "DIC"
        pixel_size_um = 0.2
        [set.label]
        nuclei = "$HERE/nuclei_{well}.ome.tif"

        [[set]]
        name = "bodies"
        input = "$HERE/stack_{well}.ome.tif"
        label_scaling = "all"
        share = 0.5
        [set.label]
        body = "$HERE/cytoplasm_{well}.ome.tif"
        """,
    )
    pairs = open_sets(path)
    assert [pair.set_name for pair in pairs] == ["strains"] * 4 + ["bodies"] * 4
    assert [pair.use for pair in pairs[:4]] == ["", "", "test", ""]
    assert {name for pair in pairs[4:] for name in pair.labels} == {"body"}
    assert pairs[0].image.modality == "DIC"
    assert pairs[0].image.pixel_size_um == 0.2
    assert (pairs[0].label_scaling, pairs[4].label_scaling) == ("image", "all")
    assert (pairs[0].share, pairs[4].share) == (1, 0.5)


def test_a_relative_pattern_starts_beside_the_file(folder):
    path = sets_file(
        folder / "sets.toml",
        '[[set]]\nname = "a"\ninput = "stack_{well}.ome.tif"\nlabel = {nuclei = "nuclei_{well}.ome.tif"}\n',
    )
    assert len(open_sets(path)) == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no set"),
        ("[[set]\n", "cannot be read"),
        ('[[set]]\nname = "a"\n', "the entry 'input' is missing"),
        ('[[set]]\nname = "a"\ninput = "x"\nlabel = {}\nlens = 4\n', "there is no entry 'lens'"),
        ('[[set]]\nname = "a"\ninput = 4\nlabel = {}\n', "the entry 'input' is 4"),
        ('[[set]]\nname = "a"\ninput = "x"\nlabel = {}\nmodality = "x-ray"\n', "modality is 'x-ray'"),
        ('[[set]]\nname = "a"\ninput = "x"\nlabel = {}\nlabel_curve = "log"\n', "label_curve is 'log'"),
        ('[[set]]\nname = "a"\ninput = "x"\nlabel = {}\nshare = 0\n', "share is 0"),
        ('[[set]]\nname = "a"\ninput = "$NOT_SET_HERE/x"\nlabel = {a = "b"}\n', "the variable in"),
    ],
)
def test_a_list_that_cannot_be_understood_is_a_sentence_with_the_set(tmp_path, text, sentence):
    with pytest.raises(LinceiError, match=r"sets\.toml") as error:
        open_sets(sets_file(tmp_path / "sets.toml", text))
    assert sentence in str(error.value)


def test_a_list_that_is_not_there_is_said(tmp_path):
    with pytest.raises(LinceiError, match="no such file"):
        open_sets(tmp_path / "none.toml")


def test_two_sets_of_one_name_are_refused(folder):
    entry = (
        '[[set]]\nname = "a"\ninput = "stack_{well}.ome.tif"\nlabel = {nuclei = "nuclei_{well}.ome.tif"}\n'
    )
    with pytest.raises(LinceiError, match="two sets have this name"):
        open_sets(sets_file(folder / "twice.toml", entry + entry))
