"""``lincei train-tumor``: from images and masks, outlines or snapshots in files to a model."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import tifffile

from arm_overlay.model_folder import drawn_section
from arm_overlay.outline import regions_of
from arm_overlay.train_files import AnnotatedSet, named_sets, open_sets, read_set
from arm_overlay.train_options import TrainTumorOptions
from arm_overlay.tumor_model import TumorModel
from lincei.cli import main
from lincei.errors import LinceiError, LinceiWarning, UsageError

pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'lincei[arm]'")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OPTIONS = TrainTumorOptions(start_from="nothing", pixel_size_um=1.0)
QUICK = ["--start-from", "nothing", "--max-steps", "3", "--crop-px", "64", "--batch", "2"]


def write_pair(folder, name, seed, *, side_px=128, mask=True):
    folder.mkdir(parents=True, exist_ok=True)
    colors, nest = drawn_section(np.random.default_rng(seed), side_px)
    tifffile.imwrite(folder / f"{name}.tif", colors, photometric="rgb")
    if mask:
        tifffile.imwrite(folder / f"{name}_mask.tif", nest.astype(np.uint8) * 255)
    return colors, nest


def write_bundle(folder, seed, *, pixel_size_um=1.0):
    from arm_overlay.annotations import write_geojson

    folder.mkdir(parents=True)
    colors, nest = drawn_section(np.random.default_rng(seed), 128)
    tifffile.imwrite(folder / "frame.tif", colors, photometric="rgb")
    regions = regions_of(nest[::4, ::4].astype(np.float32), 0.5, cell_px=4.0, size_px=(128, 128))
    write_geojson(folder / "outline.geojson", regions)
    (folder / "settings.json").write_text(json.dumps({"pixel_size_um": pixel_size_um}), "utf-8")
    return nest


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_model_is_trained_from_files_and_measured_on_others(tmp_path, capsys, monkeypatch):
    pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")
    monkeypatch.setattr(sys, "argv", ["lincei", "train-tumor", "--split-by", "name"])  # what was typed
    for seed in range(4):
        write_pair(tmp_path / "own", f"slide{seed}_1", seed)
    write_pair(tmp_path / "other", "x", 10)
    model = tmp_path / "models" / "own-tumor"
    code = run(
        "train-tumor",
        *("--images", f"own={tmp_path}/own/slide{{name}}_?.tif"),
        *("--masks", f"own={tmp_path}/own/slide{{name}}_?_mask.tif"),
        *("--images", f"elsewhere={tmp_path}/other/x.tif"),
        *("--masks", f"elsewhere={tmp_path}/other/x_mask.tif"),
        *("--split-by", "name", "--measure-on", "elsewhere", "--pixel-size-um", "1", "--out", model, *QUICK),
    )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert "Research use only" in captured.out
    assert "Measured on other images" in captured.out
    card = TumorModel.open(model).card
    assert card.training["command"] == "lincei train-tumor --split-by name"
    assert card.figures["other_images"]["elsewhere"]["fields"] == 1
    assert "x" not in [name for key in ("train", "tune", "test") for name in card.training[f"{key}_fields"]]


def test_images_and_masks_pair_by_their_names(tmp_path):
    for seed, name in enumerate("ab"):
        _, nest = write_pair(tmp_path, name, seed)
    write_pair(tmp_path, "c", 2, mask=False)
    entry = AnnotatedSet(f"{tmp_path}/{{name}}.tif", f"{tmp_path}/{{name}}_mask.tif")
    with pytest.warns(LinceiWarning, match="there is no mask for it"):
        fields = read_set(entry, OPTIONS)
    assert [field.name for field in fields] == ["a", "b"]
    np.testing.assert_array_equal(fields[1].tumor, nest)


def test_masks_that_fit_no_image_are_said(tmp_path):
    write_pair(tmp_path, "a", 0)
    (tmp_path / "a_mask.tif").rename(tmp_path / "other_mask.tif")
    with pytest.raises(LinceiError, match="no image has a mask"):
        read_set(AnnotatedSet(f"{tmp_path}/a*.tif", f"{tmp_path}/oth*_mask.tif"), OPTIONS)


def test_snapshots_are_training_data_with_their_own_pixel_size(tmp_path):
    for seed in range(2):
        nest = write_bundle(tmp_path / "shots" / f"s{seed}", seed, pixel_size_um=0.6)
    options = TrainTumorOptions(start_from="nothing")
    fields = read_set(AnnotatedSet(str(tmp_path / "shots")), options)
    assert [(field.name, field.pixel_size_um) for field in fields] == [("s0", 0.6), ("s1", 0.6)]
    assert np.mean(fields[1].tumor == nest) > 0.93
    single = read_set(AnnotatedSet(str(tmp_path / "shots" / "s1")), options)
    assert [field.name for field in single] == ["s1"]


def test_an_image_of_unknown_pixel_size_is_not_guessed_at(tmp_path):
    write_pair(tmp_path, "a", 0)
    entry = AnnotatedSet(f"{tmp_path}/a.tif", f"{tmp_path}/a_mask.tif")
    with pytest.raises(LinceiError, match="--pixel-size-um"):
        read_set(entry, TrainTumorOptions())


def test_a_gray_image_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8))
    tifffile.imwrite(tmp_path / "a_mask.tif", np.zeros((64, 64), np.uint8))
    with pytest.raises(LinceiError, match="not in color"):
        read_set(AnnotatedSet(f"{tmp_path}/a.tif", f"{tmp_path}/a_mask.tif"), OPTIONS)


def test_sixteen_bits_a_color_are_learned_from_as_eight(tmp_path):
    colors, nest = drawn_section(np.random.default_rng(0), 64)
    tifffile.imwrite(tmp_path / "a.tif", colors.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(tmp_path / "a_mask.tif", nest)
    (field,) = read_set(AnnotatedSet(f"{tmp_path}/a.tif", f"{tmp_path}/a_mask.tif"), OPTIONS)
    np.testing.assert_array_equal(field.colors, colors)


class TestNamedSets:
    def test_masks_belong_to_the_images_of_their_name(self):
        sets = named_sets(["a=x/*.tif", "b=y/*.tif"], ["b=yy/*.tif", "a=xx/*.tif"])
        assert [(s.name, s.images, s.masks) for s in sets] == [
            ("a", "x/*.tif", "xx/*.tif"),
            ("b", "y/*.tif", "yy/*.tif"),
        ]

    def test_slides_are_told_apart_where_the_pattern_says_how(self):
        sets = named_sets(
            ["a=x/{name}_?.tif", "b=y/z.tif"], ["a=x/{name}_?.png", "b=y/z.png"], split_by="name"
        )
        assert [s.split_by for s in sets] == ["name", ""]
        with pytest.raises(UsageError, match="--split-by is 'well'"):
            named_sets(["x/{name}.tif"], ["x/{name}.png"], split_by="well")

    def test_without_names_they_belong_in_their_order_and_snapshots_need_none(self, tmp_path):
        write_bundle(tmp_path / "shots" / "s", 0)
        sets = named_sets([str(tmp_path / "shots"), "x/*.tif"], ["xx/*.geojson"])
        assert [(s.name, s.masks) for s in sets] == [("set 1", ""), ("set 2", "xx/*.geojson")]

    @pytest.mark.parametrize(
        ("images", "masks", "said"),
        [
            ([], [], "no images are given"),
            (["x/*.tif"], [], "1 patterns of images and 0 of masks"),
            (["a=x/*.tif"], [], "'a' have no masks"),
            (["a=x/*.tif", "a=y/*.tif"], ["a=z/*.tif"], "two sets 'a'"),
            (["a=x/*.tif"], ["a=xx/*.tif", "b=yy/*.tif"], "'b', which no --images names"),
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, images, masks, said):
        with pytest.raises(UsageError, match=said):
            named_sets(images, masks)


class TestListedSets:
    def write(self, tmp_path, text):
        path = tmp_path / "sets.toml"
        path.write_text(text, "utf-8")
        return path

    def test_a_file_lists_sets_and_folds(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SLIDES", str(tmp_path / "data"))
        path = self.write(
            tmp_path,
            '[[set]]\nname = "a"\nimages = "$SLIDES/{name}.tif"\nmasks = "masks/{name}.png"\n'
            'split_by = "name"\n'
            '[[set]]\nimages = "patches/*.png"\nwhole = "normal"\ngroup = "slide 9"\nshare = 2\n'
            '[folds]\nfirst = ["1", "slide 9"]\n',
        )
        sets, folds = open_sets(path)
        assert sets[0].images == f"{tmp_path}/data/{{name}}.tif"
        assert sets[0].masks == f"{tmp_path}/masks/{{name}}.png"
        assert (sets[1].whole, sets[1].group, sets[1].share) == ("normal", "slide 9", 2.0)
        assert folds == {"1": "first", "slide 9": "first"}

    def test_patches_that_are_normal_as_a_whole_need_no_mask(self, tmp_path):
        write_pair(tmp_path, "p", 0, mask=False)
        (field,) = read_set(AnnotatedSet(f"{tmp_path}/p.tif", whole="normal", group="slide 9"), OPTIONS)
        assert (field.patch, field.group, bool(field.tumor.any())) == (True, "slide 9", False)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "no set"),
            ("[[set]]\nname = 'a'\n", "'images' is missing"),
            ("[[set]]\nimages = 'x'\nwhole = 'perhaps'\n", "tumor, normal"),
            ("[[set]]\nimages = 'x'\nshare = 0\n", "above 0"),
            ("[[set]]\nimages = 'x'\nedge = 3\n", "no entry 'edge'"),
            ("[[set]]\nimages = '$NOWHERE_AT_ALL/x'\n", "variable"),
            ("[[set]]\nimages = 'x'\n[folds]\na = 'x'\n", "list of groups"),
            ("[[set]]\nimages = 'x'\n[folds]\na = ['x']\nb = ['x']\n", "two folds"),
            ("[[set]\n", "cannot be read"),
        ],
    )
    def test_a_list_that_cannot_be_understood_is_refused_by_its_entry(self, tmp_path, text, said):
        with pytest.raises(LinceiError, match=said):
            open_sets(self.write(tmp_path, text))

    def test_a_missing_list_is_said(self, tmp_path):
        with pytest.raises(LinceiError, match="no such file"):
            open_sets(tmp_path / "sets.toml")


def test_what_is_measured_on_must_be_a_set(tmp_path, capsys):
    write_pair(tmp_path, "a", 0)
    code = run(
        "train-tumor",
        *("--images", f"own={tmp_path}/a.tif", "--masks", f"own={tmp_path}/a_mask.tif"),
        *("--measure-on", "others", "--pixel-size-um", "1", "--out", tmp_path / "m", *QUICK),
    )
    assert code == 2
    assert "There are: own" in capsys.readouterr().err


def test_a_missing_start_is_said_before_anything_is_trained(tmp_path, capsys):
    write_pair(tmp_path, "a", 0)
    code = run(
        "train-tumor",
        *("--images", f"{tmp_path}/a.tif", "--masks", f"{tmp_path}/a_mask.tif", "--pixel-size-um", "1"),
        *("--out", tmp_path / "m", "--start-from", "no-such-model"),
    )
    assert code == 1
    assert "there is no model 'no-such-model'" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
