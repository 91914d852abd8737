"""Thin images, saturation that is resampled, runs that rate nothing, and what exclude.csv and cards say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stand_in_models import gray, noise

from focusqc.focus_files import focus_files
from focusqc.focus_image import focus
from focusqc.options import FocusOptions
from focusqc.overlay import key_rgb
from focusqc.rating import FocusRating, PlaneRating
from focusqc.tables import exclude_rows
from lincei.errors import LinceiWarning
from lincei.image import Image
from lincei.training import typed_command


def written(path: Path, height: int, width: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, (20_000 + 3000 * noise(height, width)).astype(np.uint16))
    return str(path)


@pytest.mark.parametrize("width", range(1, 15))
def test_the_key_is_as_wide_as_the_narrowest_image(width: int) -> None:
    assert key_rgb(width).shape[1] == width


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("height", "width"), [(1, 8300), (12_400, 30), (40, 5)])
def test_a_thin_image_is_drawn(tmp_path: Path, height: int, width: int) -> None:
    summary = focus_files([written(tmp_path / "thin.tif", height, width)], tmp_path / "out", FocusOptions())
    assert summary.exit_code == 0
    assert (tmp_path / "out/overlays/thin.png").exists()


@pytest.mark.usefixtures("stand_ins")
def test_saturation_is_named_in_an_image_that_is_resampled_too() -> None:
    white = Image.from_array(np.full((200, 200), 4095, np.uint16))
    (plane,) = focus(white, pixel_size_um=0.325).planes
    assert plane.notes[0].startswith("all saturated: every pixel is 4095")


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(("value", "pixel_size_um"), [(65535, 0.27), (4095, 0.31), (100, 1.1)])
def test_the_rounding_of_resampling_is_no_texture(value: int, pixel_size_um: float) -> None:
    even = Image.from_array(np.full((300, 300), value, np.uint16))
    (plane,) = focus(even, pixel_size_um=pixel_size_um).planes
    assert plane.certainty_max < 0.01
    assert plane.notes  # all saturated, or constant


@pytest.mark.usefixtures("stand_ins")
def test_an_aperture_without_a_pixel_size_is_said_to_be_of_no_use() -> None:
    with pytest.warns(LinceiWarning, match="pixel size"):
        focus(gray(noise()), na=0.5)


@pytest.mark.usefixtures("stand_ins")
def test_a_mistyped_name_leaves_the_results_of_the_last_run(tmp_path: Path) -> None:
    written(tmp_path / "in/a.tif", 100, 100)
    focus_files([str(tmp_path / "in")], tmp_path / "out", FocusOptions())
    before = (tmp_path / "out/images.csv").read_bytes()
    assert focus_files([str(tmp_path / "in/b.tif")], tmp_path / "out", FocusOptions()).exit_code == 1
    assert (tmp_path / "out/images.csv").read_bytes() == before


def test_what_is_left_out_as_blurred_is_not_called_level_zero() -> None:
    # Half the field is sharp, the other half blurred by different amounts: a tilted slide.
    patches = np.full((1, 9, 11), 0.001, np.float32)
    for column, level in enumerate((0, 0, 0, 0, 4, 5, 6, 7, 8)):
        patches[0, column, level] = 0.99
    plane = PlaneRating(0, 0, 0, "0", (0,), tuple(range(0, 756, 84)), (84, 84), patches)
    rating = FocusRating("a", "a.tif", (plane,), (84, 756))
    assert (plane.predicted_level, plane.in_focus) == (0, "no")
    assert "level 0" not in exclude_rows(rating)[0]["reason"]


def test_the_data_folder_may_end_with_a_slash_and_names_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["lincei", "train-focus", "--input", "a=/x/data/b/*.tif", "--data-credit"]
    )
    monkeypatch.setenv("LINCEI_DATA", "/x/data/")
    assert typed_command() == 'lincei train-focus --input "a=$LINCEI_DATA/b/*.tif" --data-credit'
    monkeypatch.setenv("LINCEI_DATA", "data")
    assert typed_command().endswith("--data-credit")
