"""``lincei train-focus``: from sharp files to a model that `lincei focus` takes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tifffile

from focusqc.options import TrainFocusOptions
from focusqc.scenes import drawn_scene
from focusqc.train_files import train_files
from lincei.cli import main
from lincei.errors import LinceiError, UsageError
from lincei.model import Model

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUICK = ["--max-minutes", "0.1", "--width", "4"]


def write_sharp(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        scene = drawn_scene(np.random.default_rng(seed + i), 200)
        tifffile.imwrite(folder / name, (100 + 900 * scene).astype(np.uint16))


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_model_trained_on_files_rates_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lincei", "train-focus", "--split-by", "well"])  # what was typed
    write_sharp(tmp_path / "sharp", [f"plate_{well}_s{site}.tif" for well in "ABCD" for site in (1, 2)])
    write_sharp(tmp_path / "other", ["one.tif"], seed=50)
    model = tmp_path / "models" / "quick-focus"
    code = run(
        "train-focus",
        "--input",
        f"nuclei={tmp_path}/sharp/plate_{{well}}_s*.tif",
        "--split-by",
        "well",
        "--measure-on",
        f"others={tmp_path}/other/*.tif",
        "--out",
        model,
        *QUICK,
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "by group (4)" in printed
    assert "never trained on: others | 1 |" in printed
    card = Model.from_folder(model).card
    assert card.task == "focus"
    assert "--split-by well" in card.training["command"]
    assert (
        run("focus", tmp_path / "other", "--model", model, "--out", tmp_path / "rated", "--no-overlays") == 0
    )
    assert (tmp_path / "rated" / "images.csv").exists()


def test_a_damaged_file_is_named_before_any_training(tmp_path):
    write_sharp(tmp_path, ["a.tif", "b.tif"])
    (tmp_path / "c.tif").write_bytes(b"II*\0 not really")
    with pytest.raises(LinceiError, match=r"c\.tif"):
        train_files([str(tmp_path)], tmp_path / "model", TrainFocusOptions(max_minutes=0.1))


def test_what_is_missing_is_said():
    with pytest.raises(UsageError, match="no sharp images"):
        train_files([], "model", TrainFocusOptions())


def test_a_placeholder_that_no_pattern_holds_is_refused(tmp_path):
    write_sharp(tmp_path, ["a.tif"])
    with pytest.raises(UsageError, match="--split-by is 'well'"):
        train_files([f"{tmp_path}/*.tif"], "model", TrainFocusOptions(), split_by="well")


def test_two_sets_of_one_name_are_refused(tmp_path):
    write_sharp(tmp_path, ["a.tif"])
    text = f"cells={tmp_path}/*.tif"
    with pytest.raises(UsageError, match="two sets"):
        train_files([text, text], "model", TrainFocusOptions())


def test_what_is_measured_on_needs_a_name(tmp_path):
    write_sharp(tmp_path, ["a.tif"])
    with pytest.raises(UsageError, match="without a name"):
        train_files([f"{tmp_path}/*.tif"], "model", TrainFocusOptions(), measure_on=[f"{tmp_path}/*.tif"])


def test_equal_names_in_two_sets_have_groups_of_their_own(tmp_path):
    from focusqc.train_files import _opened

    write_sharp(tmp_path / "one", ["A_s1.tif", "B_s1.tif"])
    write_sharp(tmp_path / "two", ["A_s1.tif"])
    inputs = [f"one={tmp_path}/one/{{well}}_s*.tif", f"two={tmp_path}/two/*.tif"]
    _, groups = _opened(inputs, "well", "--input")
    assert groups == {"one": {"A_s1": "A", "B_s1": "B"}, "two": {}}
