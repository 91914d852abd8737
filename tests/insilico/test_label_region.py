"""Labeling a part of an image: it is that part of what the whole image gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_models import TinyModels, gray, stack

import insilico.labeling
from insilico import label
from insilico.labeling import Measurements
from insilico.options import STATISTICS
from lincei.errors import UsageError
from lincei.image import Image

# The same numbers are added up in another order.
ROUNDING = 2e-5

INSIDE = {"Y": slice(61, 133), "X": slice(37, 90)}
CORNERS = [
    INSIDE,
    {"Y": slice(0, 40), "X": slice(0, 33)},
    {"Y": slice(150, 203), "X": slice(111, 157)},
    {"Y": slice(202, 203), "X": slice(None)},
    {"X": slice(5, 6)},
]


def uneven(planes: int = 3) -> Image:
    """Return an image whose left is brighter and of more contrast, so that a part has another scaling."""
    pixels = stack(planes, 203, 157)
    return gray(pixels * np.linspace(2, 0.2, 157) + np.linspace(1, -1, 157), pixel_size_um=0.65)


def cropped(image: Image, region: dict[str, slice]) -> Any:
    return image.read(region)


@pytest.mark.parametrize("region", CORNERS)
@pytest.mark.parametrize("tile_px", [48, 1024])
def test_a_region_is_the_crop_of_the_whole(tiny: TinyModels, region: dict[str, slice], tile_px: int):
    image = uneven()
    whole = label(image, "tiny", statistics=STATISTICS)
    part = label(image, "tiny", statistics=STATISTICS, region=region, tile_px=tile_px)
    for name in STATISTICS:
        expected = cropped(whole[name], region)
        assert part[name].shape == expected.shape
        np.testing.assert_allclose(
            part[name].read(), expected, atol=ROUNDING * max(1, np.abs(expected).max())
        )


@pytest.mark.parametrize("pixel_size_um", [0.2, 0.31, 0.83, 1.4])
@pytest.mark.parametrize("region", CORNERS)
def test_it_is_so_when_the_image_is_resampled_to_the_models_pixel_size(
    tiny: TinyModels, region: dict[str, slice], pixel_size_um: float
):
    image = uneven().with_(pixel_size_um=pixel_size_um, z_step_um=2.0)
    whole = label(image, "tiny-scaled", statistics=("mean", "sd"))
    part = label(image, "tiny-scaled", statistics=("mean", "sd"), region=region, tile_px=64)
    for name in ("mean", "sd"):
        expected = cropped(whole[name], region)
        assert part[name].shape == expected.shape
        np.testing.assert_allclose(
            part[name].read(), expected, atol=ROUNDING * max(1, np.abs(expected).max())
        )


def test_without_the_whole_images_scaling_it_would_be_another(tiny: TinyModels):
    image = uneven()
    whole = label(image, "tiny", statistics=("mean",))["mean"]
    cut = image.with_(data=image.read(INSIDE))
    alone = label(cut, "tiny", statistics=("mean",))["mean"].read()
    assert np.abs(alone - cropped(whole, INSIDE)).mean() > 100 * ROUNDING


def test_one_time_point_is_labeled_alone_and_several_models_share_the_region(tiny: TinyModels):
    values = (20_000 + 4000 * np.stack([stack(3, 80, 90, seed) for seed in range(3)])).astype("uint16")
    movie = Image.from_array(values, axes="TZYX", pixel_size_um=0.4, z_step_um=2.0)
    region = {"T": slice(2, 3), "Y": slice(9, 70), "X": slice(30, 81)}
    models = ("tiny", "tiny-scaled", "tiny-one")
    whole = label(movie, models, statistics=("mean",))["mean"]
    part = label(movie, models, statistics=("mean",), region=region)["mean"]
    assert part.shape == (1, 6, 1, 61, 51)
    assert part.channel_names == whole.channel_names
    np.testing.assert_allclose(part.read(), cropped(whole, region), atol=1e-4)


def test_a_second_region_measures_nothing_again(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch):
    image, measured = uneven(), Measurements()
    first = label(image, "tiny", region=INSIDE, measurements=measured)["mean"].read()

    def refuse(*_arguments: Any, **_keywords: Any) -> None:
        raise AssertionError("measured again")

    for name in ("standard_scaling", "drift_px", "score_image"):
        monkeypatch.setattr(insilico.labeling, name, refuse)
    second = label(image, "tiny", region=INSIDE, measurements=measured)["mean"].read()
    np.testing.assert_array_equal(first, second)
    with pytest.raises(AssertionError, match="measured again"):
        label(image, "tiny", region=INSIDE)


def test_the_result_says_which_part_it_is(tiny: TinyModels):
    image = uneven()
    part = label(image, "tiny", region=INSIDE)["mean"]
    whole = label(image, "tiny")["mean"]
    assert part.provenance is not None
    assert part.provenance["region"] == {"T": [0, 1], "Y": [61, 133], "X": [37, 90]}
    assert whole.provenance is not None
    assert "region" not in whole.provenance


def test_a_region_is_read_with_its_surroundings_alone(tiny: TinyModels):
    image = uneven()
    label(image, "tiny", region=INSIDE, measurements=(measured := Measurements()))
    read: list[dict[str, slice]] = []

    class Noting:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key: Any) -> Any:
            read.append(dict(zip("TCZYX", key, strict=True)))
            return image.data[key]

    label(image.with_(data=Noting()), "tiny", region={"Y": slice(0, 8)}, measurements=measured)
    halo = tiny.three.card.halo_px + 2 * tiny.three.card.total_stride
    assert read
    assert max(part["Y"].stop for part in read) <= 8 + halo < image.shape[3]


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ({"Z": slice(0, 1)}, "the region names the axis 'Z'"),
        ({"Y": 3}, "the region along Y is not a slice of step 1"),
        ({"Y": slice(0, 10, 2)}, "the region along Y is not a slice of step 1"),
        ({"Y": slice(0, 204)}, "the region along Y is from 0 to 204"),
        ({"X": slice(-5, None)}, "the region along X is from -5 to None"),
        ({"X": slice(9, 9)}, "the region along X is from 9 to 9"),
    ],
)
def test_a_region_that_is_none_is_refused(tiny: TinyModels, region: Any, sentence: str):
    with pytest.raises(UsageError) as raised:
        label(uneven(), "tiny", region=region)
    assert sentence in str(raised.value)
