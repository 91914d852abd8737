"""What rating an image promises: planes, patches, bit depths, odd images, and what it refuses."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stand_in_models import even_noise, gray, noise, rule, write_stand_in

import focusqc
import focusqc.focus_image
from focusqc import FocusOptions, focus
from focusqc.focus_image import BATCH_SIZES, batch_sizes, model_for
from focusqc.patches import patch_grid, patch_pixels
from focusqc.rating import PlaneRating
from lincei.engine import open_engine
from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.formats.lazy import LazyArray
from lincei.image import Image, open_image
from lincei.model import Model
from lincei.pixel_size import resampled
from lincei.progress import Progress

EVEN = np.full(11, 1 / 11)
TRANSMITTED_NAMES = [
    "Phase", "phase contrast", "PhaseContrast", "img_phase", "cells-phase", "Ph", "PH1", "ph2", "BF",
    "bright field", "TL Brightfield", "DIC", "T-PMT", "TPMT", "Transmitted light", "transmission", "TL_1",
]  # fmt: skip
STAINS = [
    "PH3", "pH3", "Ph-H3", "S-phase marker", "EdU_S-phase", "G1-phase", "G1/S phase", "M phase", "metaphase",
    "neurotransmitter", "trans-Golgi", "Phalloidin", "pHrodo", "DiC18", "BFP",
]  # fmt: skip


class LazyPixels(LazyArray):
    """Pixels that are made where they are read; remembers how much was read at a time."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "uint16") -> None:
        super().__init__(shape, dtype)
        self.most_px = 0
        self.rows_read: Counter[int] = Counter()

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        sizes = [part.stop - part.start for part in box]
        self.most_px = max(self.most_px, int(np.prod(sizes)))
        self.rows_read.update(range(box[3].start, box[3].stop))
        y, x = np.ogrid[box[3], box[4]]
        plane = (y * 7919 + x * 104729) % 60013
        return np.broadcast_to(plane, sizes).astype(self.dtype)


def only(rating: focusqc.FocusRating) -> PlaneRating:
    (plane,) = rating.planes
    return plane


def by_rule(plane: NDArray[Any], **grid: Any) -> NDArray[np.float64]:
    """Return what the stand-in's rule says of a plane's patches, shape (patches, 11)."""
    places = patch_grid(*plane.shape, **grid)
    return rule(patch_pixels(plane, places, 0, len(places)))


@pytest.mark.usefixtures("stand_ins")
class TestPlanes:
    def test_every_patch_is_rated_where_it_lies(self):
        image = gray(noise(200, 300, blur_px=1))
        rating = focus(image)
        plane = only(rating)
        assert (plane.y, plane.x, plane.patch_px) == ((0, 84, 116), (0, 84, 168, 216), (84, 84))
        expected = by_rule(image.read()[0, 0, 0]).reshape(3, 4, 11)
        np.testing.assert_allclose(plane.probabilities, expected, atol=1e-5)
        assert rating.size_px == (200, 300)
        assert plane.notes == ()

    def test_all_times_channels_and_planes_are_rated_in_order(self):
        pixels = np.stack([noise(90, 100, seed=seed) for seed in range(12)]).reshape(2, 2, 3, 90, 100)
        image = gray(pixels, channel_names=("DAPI", "GFP"))
        rating = focus(image)
        assert [(p.time, p.channel, p.z) for p in rating.planes] == [
            (t, c, z) for t in range(2) for c in range(2) for z in range(3)
        ]
        assert [p.channel_name for p in rating.planes[:6]] == ["DAPI"] * 3 + ["GFP"] * 3
        for p in rating.planes:
            expected = by_rule(image.read()[p.time, p.channel, p.z])
            np.testing.assert_allclose(p.probabilities.reshape(-1, 11), expected, atol=1e-5)

    def test_of_a_stack_the_sharpest_plane_is_named(self):
        blurs = (3.0, 1.5, 0.3, 0.8, 2.0)
        image = gray(np.stack([noise(blur_px=blur) for blur in blurs]), axes="ZYX")
        rating = focus(image)
        assert rating.sharpest == {(0, 0): 2}
        assert [row["sharpest"] for row in rating.image_rows()] == ["no", "no", "yes", "no", "no"]

    @pytest.mark.parametrize("wanted", ["GFP", "gfp", "1"])
    def test_a_channel_is_chosen_by_name_or_number(self, wanted: str):
        image = gray(
            np.stack([noise(seed=1), noise(seed=2, blur_px=2)]), axes="CYX", channel_names=("DAPI", "GFP")
        )
        plane = only(focus(image, channel=(wanted,)))
        assert (plane.channel, plane.channel_name) == (1, "GFP")
        expected = by_rule(image.read()[0, 1, 0])
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)

    def test_a_channel_that_is_not_there_is_refused_with_those_that_are(self):
        image = gray(np.stack([noise(), noise()]), axes="CYX", channel_names=("DAPI", "GFP"))
        with pytest.raises(UsageError, match=r"no channel 'RFP'\. There are: 0 \(DAPI\), 1 \(GFP\)"):
            focus(image, channel=("RFP",))

    def test_a_color_image_is_one_plane_of_the_mean_of_its_colors(self):
        pixels = np.stack([noise(seed=seed) for seed in range(3)], axis=-1)
        image = gray(pixels, "uint8", axes="YXS")
        plane = only(focus(image))
        assert (plane.channel, plane.channel_name) == (0, "RGB")
        mean = image.read()[0, :, 0].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), by_rule(mean), atol=1e-5)

    def test_gray_stored_as_color_is_rated_as_gray(self):
        one = gray(noise(blur_px=1), "uint8")
        three = Image.from_array(np.stack([one.read()[0, 0, 0]] * 3, axis=-1), "YXS")
        color, alone = (only(focus(image, "focus-fluorescence")) for image in (three, one))
        np.testing.assert_array_equal(color.probabilities, alone.probabilities)

    def test_tile_counts_place_patches_as_the_imagej_plugin_does(self):
        image = gray(noise(520, 696))
        plane = only(focus(image, tile_count=(4, 3)))
        assert plane.x == tuple(84 * i + (i + 1) * (696 - 84 * 4) // 5 for i in range(4))
        assert plane.y == tuple(84 * i + (i + 1) * (520 - 84 * 3) // 4 for i in range(3))
        expected = by_rule(image.read()[0, 0, 0], tile_count=(4, 3))
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)

    def test_tiles_may_overlap(self):
        image = gray(noise(100, 120))
        plane = only(focus(image, tile_count=(3, 2)))
        assert plane.probabilities.shape == (2, 3, 11)
        expected = by_rule(image.read()[0, 0, 0], tile_count=(3, 2))
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)


@pytest.mark.usefixtures("stand_ins")
class TestGrayValues:
    @pytest.mark.parametrize(
        ("dtype", "gain", "offset"),
        [
            ("uint16", 1, 0),
            ("uint16", 3, 4000),
            ("int16", 1, -20000),
            ("uint32", 1000, 4_000_000),
            ("int32", -1, 0),
            ("float32", 1 / 65535, 0),
            ("float32", 1e-12, 0),
            ("float32", 1e25, -1e28),
            ("float64", 1e-3, 5e6),
            ("float64", 1e300, 0),
        ],
    )
    def test_the_same_content_is_rated_alike_in_any_type_gain_and_offset(
        self, dtype: str, gain: float, offset: float
    ):
        content = np.round(8000 + 1000 * noise(blur_px=1))
        plain = only(focus(Image.from_array(content.astype("uint16"))))
        pixels = (content * gain + offset).astype(dtype)
        # Stated, since a negative gain makes the background bright.
        other = only(focus(Image.from_array(pixels, modality="fluorescence")))
        np.testing.assert_allclose(other.probabilities, plain.probabilities, atol=2e-3)
        assert other.notes == ()

    def test_8_and_12_bits_are_rated_as_16(self):
        content = 0.2 + 0.05 * noise(blur_px=1)
        ratings = [
            only(focus(Image.from_array(np.round(content * top).astype(dtype))))
            for top, dtype in ((255, "uint8"), (4095, "uint16"), (65535, "uint16"))
        ]
        for rating in ratings:
            assert rating.expected_level == pytest.approx(ratings[-1].expected_level, abs=0.02)

    def test_other_byte_orders_are_read(self):
        image = gray(noise())
        swapped = Image.from_array(image.read()[0, 0, 0].astype(">u2"))
        np.testing.assert_array_equal(only(focus(swapped)).probabilities, only(focus(image)).probabilities)

    @pytest.mark.parametrize(
        ("pixels", "note"),
        [
            (np.zeros((100, 100), np.uint16), "all black: every pixel is 0"),
            (np.full((100, 100), 7, np.uint16), "constant: every pixel is 7"),
            (np.full((100, 100), 0.1, np.float32), "constant: every pixel is 0.1"),
            (np.full((100, 100), 255, np.uint8), "all saturated: every pixel is 255"),
            (np.full((100, 100), 65535, np.uint16), "all saturated: every pixel is 65535"),
            (np.full((100, 100), 4095, np.uint16), "all saturated: every pixel is 4095"),
            (np.full((100, 100, 3), 255, np.uint8), "all saturated: every pixel is 255"),
        ],
    )
    def test_a_plane_without_content_is_uncertain_and_said_to_be(self, pixels: NDArray[Any], note: str):
        image = Image.from_array(pixels, "YXS" if pixels.ndim == 3 else None)
        plane = only(focus(image))
        assert plane.certainty_max < 0.01
        assert plane.in_focus == "uncertain"
        (said,) = plane.notes
        assert said.startswith(note)

    @pytest.mark.parametrize(
        ("value", "dtype", "pixel_size_um", "note"),
        [
            (65535, "uint16", 0.27, "all saturated: every pixel is 65535"),
            (4095, "uint16", 0.31, "all saturated: every pixel is 4095"),
            (255, "uint8", 1.1, "all saturated: every pixel is 255"),
            (100, "uint16", 1.1, "constant: every pixel is 100"),
            (0, "uint16", 1.1, "all black: every pixel is 0"),
            (0.1, "float32", 0.31, "constant: every pixel is 0.1"),
        ],
    )
    @pytest.mark.parametrize("color", [False, True])
    def test_the_rounding_of_resampling_is_no_content(
        self, value: float, dtype: str, pixel_size_um: float, note: str, color: bool
    ):
        if color and value == 4095:
            note = "constant: every pixel is 4095"  # no camera of 12 bits gives colors
        pixels = np.full((300, 300, 3) if color else (300, 300), value, dtype)
        image = Image.from_array(pixels, "YXS" if color else None, modality="fluorescence")
        plane = only(focus(image, pixel_size_um=pixel_size_um))
        assert plane.certainty_max < 0.01
        assert plane.notes[0].startswith(note)

    @pytest.mark.parametrize("pixel_size_um", [0.27, 1.1])
    def test_an_even_part_of_a_resampled_image_says_nothing(self, pixel_size_um: float):
        pixels = gray(noise(600, 600)).read()[0, 0, 0].copy()
        pixels[:, 300:] = 4095
        image = Image.from_array(pixels, modality="fluorescence")
        plane = only(focus(image, pixel_size_um=pixel_size_um))
        even = np.array(plane.x) > 310
        assert even.any()
        assert (plane.patch_certainties[:, even] < 0.01).all()
        assert (plane.patch_certainties[:, 0] > 0.1).all()

    @pytest.mark.parametrize(("band_bytes", "pixel_size_um"), [(2**24, 0.27), (1, 0.27), (2**24, 1.1)])
    def test_saturation_is_counted_in_a_resampled_image_too(
        self, monkeypatch: pytest.MonkeyPatch, band_bytes: int, pixel_size_um: float
    ):
        monkeypatch.setattr(focusqc.focus_image, "_BAND_BYTES", band_bytes)
        pixels = gray(noise(600, 600)).read()[0, 0, 0].copy()
        pixels[300:] = 65535
        image = Image.from_array(pixels, modality="fluorescence")
        plane = only(focus(image, pixel_size_um=pixel_size_um))
        assert plane.notes[0].startswith("saturated: 50 % of the pixels are 65535")

    @pytest.mark.parametrize(("share", "said"), [(0.005, False), (0.05, True)])
    def test_a_partly_saturated_plane_is_said_to_be_above_one_percent(self, share: float, said: bool):
        image = gray(noise(), "uint8")
        pixels = image.read()[0, 0, 0].copy()
        pixels.flat[:: round(1 / share)] = 255
        notes = only(focus(Image.from_array(pixels))).notes
        expected = "saturated: 5 % of the pixels are 255, the brightest there can be"
        assert notes == ((expected,) if said else ())

    def test_what_is_saturated_is_told_by_the_stated_range(self):
        pixels = np.minimum(gray(noise()).read()[0, 0, 0], 39_000)
        pixels[:50] = 40_000
        stated = Image.from_array(pixels.astype(np.float32), intensity_range=(0, 40_000))
        assert only(focus(stated)).notes[0].startswith("saturated: 25 % of the pixels are 40000")
        assert only(focus(stated.with_(intensity_range=(0, 50_000)))).notes == ()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_pixels_that_are_no_numbers_count_as_the_median_of_the_others(self, value: float):
        clean = gray(noise(200, 300), "float32").read()[0, 0, 0].copy()
        broken = clean.copy()
        broken[150:160, 20:40] = value
        clean[150:160, 20:40] = np.median(broken[np.isfinite(broken)])
        plane, expected = (only(focus(Image.from_array(pixels))) for pixels in (broken, clean))
        np.testing.assert_allclose(plane.probabilities, expected.probabilities, atol=1e-5)
        (note,) = plane.notes
        assert note == "200 pixels are not a finite number: rated with the median of the others in place"

    def test_a_plane_without_any_number_is_an_error_that_names_it(self):
        pixels = np.stack([noise(), np.full((200, 300), np.nan)])
        image = gray(pixels, "float32", axes="ZYX", source="a.tif")
        with pytest.raises(LinceiError, match=r"a\.tif: no pixel of the plane at time 0, channel 0, z 1 is"):
            focus(image)


@pytest.mark.usefixtures("stand_ins")
class TestSize:
    @pytest.mark.parametrize("size", [(50, 60), (84, 30), (30, 200), (1, 1), (1, 300)])
    def test_an_image_smaller_than_a_patch_is_padded_and_flagged(self, size: tuple[int, int]):
        image = gray(noise(*size) if min(size) > 1 else np.zeros(size))
        plane = only(focus(image))
        assert plane.patch_px == (min(size[0], 84), min(size[1], 84))
        assert plane.notes[0] == "smaller than a patch of 84 pixels: padded by mirroring"
        expected = by_rule(image.read()[0, 0, 0])
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)

    def test_an_image_of_one_patch_is_not_flagged(self):
        plane = only(focus(gray(noise(84, 84))))
        assert (plane.y, plane.x, plane.notes) == ((0,), (0,), ())

    @pytest.mark.parametrize("band_bytes", [1, 84 * 1000 * 2 * 3, 2**30])
    @pytest.mark.parametrize("tile_count", [(), (5, 7)])
    def test_how_it_is_read_does_not_change_the_rating(
        self, monkeypatch: pytest.MonkeyPatch, band_bytes: int, tile_count: tuple[int, ...]
    ):
        image = gray(noise(700, 1000, blur_px=1))
        monkeypatch.setattr(focusqc.focus_image, "_BAND_BYTES", band_bytes)
        plane = only(focus(image, tile_count=tile_count))
        expected = by_rule(image.read()[0, 0, 0], tile_count=tile_count or None)
        np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)

    def test_notes_do_not_depend_on_how_it_is_read(self, monkeypatch: pytest.MonkeyPatch):
        pixels = gray(noise(700, 300), "uint8").read()[0, 0, 0].copy()
        pixels[600:] = 255
        whole = only(focus(Image.from_array(pixels))).notes
        monkeypatch.setattr(focusqc.focus_image, "_BAND_BYTES", 1)
        assert only(focus(Image.from_array(pixels))).notes == whole
        assert whole[0].startswith("saturated: 14 % of the pixels")

    def test_a_large_plane_is_read_once_in_bands(self):
        pixels = LazyPixels((1, 1, 1, 6000, 6000))
        rating = focus(Image(pixels, modality="fluorescence"))
        assert only(rating).probabilities.shape == (72, 72, 11)
        assert pixels.most_px * 2 <= 16 * 2**20
        # Rows that two rows of patches share at the lower edge may be read twice.
        assert sum(pixels.rows_read.values()) <= 6000 + 84

    def test_the_network_meets_no_more_sizes_than_an_engine_keeps(self):
        for total in range(1, 700):
            sizes = batch_sizes(total)
            assert set(sizes) <= set(BATCH_SIZES)
            assert total <= sum(sizes) < total + 32
            assert sum(sizes[:-1]) < total

    def test_batches_reach_over_planes_without_mixing_them_up(self):
        # 5 patches a plane, so that no batch of 16, 64 or 256 ends with one.
        image = gray(np.stack([noise(84, 400, seed=seed) for seed in range(67)]), axes="TYX")
        for plane in focus(image).planes:
            expected = by_rule(image.read()[plane.time, 0, 0])
            np.testing.assert_allclose(plane.probabilities.reshape(-1, 11), expected, atol=1e-5)


@pytest.mark.usefixtures("stand_ins")
class TestPixelSize:
    def test_the_image_is_resampled_only_when_the_user_states_its_pixel_size(self):
        image = gray(noise(200, 300, blur_px=2), pixel_size_um=0.325)
        as_it_is = focus(image, model="focus-fluorescence")
        plain = by_rule(image.read()[0, 0, 0])
        np.testing.assert_allclose(only(as_it_is).probabilities.reshape(-1, 11), plain, atol=1e-5)
        scaled = focus(image, pixel_size_um=0.325)
        expected = by_rule(resampled(image.read()[0, 0, 0], 0.5))
        np.testing.assert_allclose(only(scaled).probabilities.reshape(-1, 11), expected, atol=1e-4)

    def test_patches_of_a_resampled_image_lie_on_its_own_grid(self):
        plane = only(focus(gray(noise(400, 600)), pixel_size_um=0.325))
        # 200 x 300 pixels at the model's scale, twice as many in the file.
        assert (plane.y, plane.x) == ((0, 168, 232), (0, 168, 336, 432))
        assert plane.patch_px == (168, 168)
        enlarged = only(focus(gray(noise(101, 151)), pixel_size_um=1.3))
        assert enlarged.patch_px == (42, 42)
        assert (enlarged.y[-1], enlarged.x[-1]) == (101 - 42, 151 - 42)

    def test_what_is_too_small_at_the_models_pixel_size_is_said_to_be_so_there(self):
        image = gray(noise(200, 300), source="a.tif", modality="fluorescence")
        (note,) = only(focus(image, pixel_size_um=0.2)).notes
        assert note == "smaller than a patch of 84 pixels at the model's pixel size: padded by mirroring"
        with pytest.raises(UsageError, match=r"a\.tif: .*has 62 pixels at the model's pixel size\. Ask for"):
            focus(image, pixel_size_um=0.2, tile_count=(1, 2))
        with pytest.raises(UsageError, match=r"a\.tif: .*has 200 pixels\. Ask for"):
            focus(image, tile_count=(1, 200))

    @pytest.mark.parametrize(
        ("pixel_size_um", "notes"),
        [
            (1.2, ()),
            (1.3, ("enlarged 2 times: what its coarse pixels blur counts as defocus",)),
            (3.0, ("enlarged 4.6 times: what its coarse pixels blur counts as defocus",)),
        ],
    )
    def test_strong_enlarging_is_said_to_count_as_defocus(self, pixel_size_um: float, notes: tuple[str, ...]):
        assert only(focus(gray(noise(100, 100)), pixel_size_um=pixel_size_um)).notes == notes

    def test_pixel_sizes_that_cannot_be_meant_are_refused(self):
        with pytest.raises(LinceiError, match=r"its pixels are 325 um.*--pixel-size-um"):
            focus(gray(noise()), pixel_size_um=325.0)

    def test_defocus_is_given_in_micrometers_where_the_optics_are_known(self):
        image = gray(noise(blur_px=2), pixel_size_um=0.65)
        assert focus(image).optics is None
        rating = focus(image, na=0.5)
        assert rating.optics is not None
        # These are the reference optics: a level is 2 um.
        (row,) = rating.image_rows()
        assert row["defocus_um"] == pytest.approx(2 * row["expected_level"], rel=1e-3)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"na": 0.5}, r"^--na is given, but the pixel size is not known: .* Pass --pixel-size-um\.$"),
            ({"wavelength_um": 0.6}, r"^--wavelength-um is given without --na: "),
            ({"refractive_index": 1.33, "pixel_size_um": 0.65}, r"^--refractive-index is given without --na"),
            (
                {"refractive_index": 1.33, "wavelength_um": 0.6},
                r"^--wavelength-um and --refractive-index are given without --na: .* Pass --na\.$",
            ),
        ],
    )
    def test_optics_that_do_not_give_micrometers_are_said_to_be_of_no_use(
        self, options: dict[str, float], said: str
    ):
        with pytest.warns(LinceiWarning, match=said):
            rating = focus(gray(noise()), **options)
        assert rating.image_rows()[0]["defocus_um"] is None

    def test_levels_of_a_resampled_image_are_blur_at_the_models_pixel_size(self):
        rating = focus(gray(noise()), pixel_size_um=0.325, na=0.5)
        assert rating.optics is not None
        assert rating.optics.pixel_size_um == pytest.approx(0.65)
        assert rating.pixel_size_um == 0.325


@pytest.mark.usefixtures("stand_ins")
class TestModality:
    @pytest.mark.parametrize("modality", ["phase contrast", "bright field", "DIC"])
    def test_transmitted_light_is_refused_with_the_reason(self, modality: str):
        with pytest.raises(
            LinceiError, match=rf"a {modality} image, and no model rates.*Rate a fluorescence"
        ):
            focus(gray(noise(), modality=modality))

    def test_what_the_user_states_goes_before_what_the_file_states(self):
        focus(gray(noise(), modality="phase contrast"), modality="fluorescence")
        with pytest.raises(LinceiError, match="phase contrast"):
            focus(gray(noise(), modality="fluorescence"), modality="phase contrast")

    def test_a_model_for_another_kind_of_image_is_refused(self):
        with pytest.raises(LinceiError, match=r"an H&E image.*rates fluorescence.*--model focus-he"):
            focus(gray(noise(), modality="H&E"), "focus-fluorescence")
        with pytest.raises(LinceiError, match=r"a fluorescence image.*rates H&E.*--model focus-fluorescence"):
            focus(gray(noise(), modality="fluorescence"), "focus-he")

    @pytest.mark.parametrize(
        ("brightness", "modality", "model"),
        [
            (200, None, "focus-he"),
            (200, "bright field", "focus-he"),
            (200, "fluorescence", "focus-fluorescence"),
            (20, None, "focus-fluorescence"),
            (20, "H&E", "focus-he"),
        ],
    )
    def test_color_images_of_stained_sections_are_known_by_their_background(
        self, brightness: int, modality: str | None, model: str
    ):
        pixels = (brightness + 5 * np.stack([noise()] * 3, axis=-1)).astype(np.uint8)
        image = Image.from_array(pixels, "YXS", modality=modality)
        assert model_for(image, FocusOptions()).name == model
        assert focus(image).provenance["model"]["name"] == model

    def test_a_model_is_taken_by_name_folder_or_as_it_is(self, stand_ins: Path):
        image = gray(noise())
        ratings = [
            focus(image, model)
            for model in ("focus-he", stand_ins / "focus-he", Model.from_folder(stand_ins / "focus-he"))
        ]
        assert {rating.provenance["model"]["name"] for rating in ratings} == {"focus-he"}

    def test_transmitted_channels_among_others_are_left_out_and_named(self):
        names = ("DAPI", "TL Brightfield", "Phalloidin", "Ph2")
        image = gray(np.stack([noise(seed=seed) for seed in range(4)]), axes="CYX", channel_names=names)
        with pytest.warns(LinceiWarning, match="channel TL Brightfield, Ph2 not rated: transmitted light"):
            rating = focus(image)
        assert [plane.channel_name for plane in rating.planes] == ["DAPI", "Phalloidin"]
        assert [plane.channel for plane in rating.planes] == [0, 2]
        expected = ("channel TL Brightfield, Ph2 not rated: transmitted light",)
        assert all(plane.notes == expected for plane in rating.planes)

    def test_a_transmitted_channel_that_is_asked_for_is_refused(self):
        image = gray(np.stack([noise(), noise()]), axes="CYX", channel_names=("DAPI", "BF"))
        with pytest.raises(LinceiError, match="'BF' is transmitted light by its name"):
            focus(image, channel=("BF",))
        alone = gray(noise(), channel_names=("DIC",))
        with pytest.raises(LinceiError, match="'DIC' is transmitted light by its name"):
            focus(alone)
        assert only(focus(alone, modality="fluorescence")).channel_name == "DIC"

    @pytest.mark.parametrize(
        "name",
        TRANSMITTED_NAMES,
    )
    def test_names_of_transmitted_light_are_known(self, name: str):
        with pytest.raises(LinceiError, match="is transmitted light by its name"):
            focus(gray(noise(), channel_names=(name,)))

    @pytest.mark.parametrize(
        "name",
        STAINS,
    )
    def test_names_of_stains_are_not_taken_for_transmitted_light(self, name: str):
        assert only(focus(gray(noise(), channel_names=(name,)))).notes == ()

    def test_a_model_of_another_task_is_refused(self, tmp_path: Path):
        stand_in = write_stand_in(tmp_path / "other")
        other = Model(stand_in.folder, dataclasses.replace(stand_in.card, task="tumor"))
        with pytest.raises(LinceiError, match="not a model that rates the focus"):
            focus(gray(noise()), other)


@pytest.mark.usefixtures("stand_ins")
class TestBackground:
    NOTE = focusqc.focus_image._BRIGHT_NOTE

    @pytest.mark.parametrize("pixel_size_um", [None, 0.5])
    def test_what_is_not_dark_is_warned_of_once_and_noted_for_each_plane(self, pixel_size_um: float | None):
        pixels = np.stack([even_noise(blur_px=1), noise(blur_px=1), even_noise(blur_px=2)])
        image = gray(pixels, axes="TYX", name="cells")
        with pytest.warns(LinceiWarning) as said:
            rating = focus(image, pixel_size_um=pixel_size_um)
        assert [str(warning.message) for warning in said] == [f"cells: {self.NOTE}."]
        assert [plane.notes for plane in rating.planes] == [(self.NOTE,), (), (self.NOTE,)]
        assert all(row["note"] == self.NOTE for row in rating.image_rows()[::2])

    def test_bright_objects_are_told_from_dark_ones(self):
        bright = gray(noise(blur_px=1))
        top = bright.read().max() + np.uint16(1)
        with pytest.warns(LinceiWarning, match="its background is not dark"):
            focus(bright.with_(data=top - bright.read()))

    def test_a_stated_modality_is_not_doubted(self):
        image = gray(even_noise())
        assert only(focus(image.with_(modality="fluorescence"))).notes == ()
        assert only(focus(image, modality="fluorescence")).notes == ()

    def test_another_model_and_color_are_not_doubted(self):
        assert only(focus(gray(even_noise()), "focus-he")).notes == ()
        color = gray(np.stack([even_noise()] * 3, axis=-1), "uint8", axes="YXS")
        assert only(focus(color, "focus-fluorescence")).notes == ()

    def test_a_plane_that_is_uncertain_anyway_is_not_doubted(self, monkeypatch: pytest.MonkeyPatch):
        image = gray(even_noise())
        monkeypatch.setattr(PlaneRating, "in_focus", "uncertain")
        assert only(focus(image)).notes == ()


@pytest.mark.usefixtures("stand_ins")
class TestTheJob:
    def test_provenance_says_what_rated_what_with_which_options(self, stand_ins: Path):
        rating = focus(gray(noise(), source="a.tif", pixel_size_um=0.65), na=0.4, threads=1)
        model = Model.from_folder(stand_ins / "focus-fluorescence")
        told = rating.provenance
        assert told["lincei_version"]
        assert told["model"] == {
            "name": "focus-fluorescence",
            "version": model.card.created,
            "hash": model.hash,
        }
        assert told["parameters"] == {
            **FocusOptions(na=0.4, threads=1).to_json(),
            "model": "focus-fluorescence",
        }
        assert told["source"] == "a.tif"
        assert told["engine"].endswith("(float32)")

    def test_progress_counts_patches_and_ends_at_the_last(self):
        heard: list[Progress] = []
        focus(gray(noise(700, 1000)), progress=heard.append)
        assert [(update.done, update.total) for update in heard] == [(64, 108), (108, 108)]
        assert {update.stage for update in heard} == {"rating"}

    def test_it_stops_when_asked_to(self):
        calls = iter([False, False, True])
        image = Image(LazyPixels((1, 1, 1, 4000, 4000)))
        with pytest.raises(CancelledError):
            focus(image, cancelled=lambda: next(calls))

    def test_options_come_as_an_object_or_as_keywords(self):
        image = gray(noise(300, 300))
        one = focus(image, options=FocusOptions(tile_count=(2, 2)))
        other = focus(image, tile_count=(2, 2))
        np.testing.assert_array_equal(only(one).probabilities, only(other).probabilities)
        with pytest.raises(UsageError, match="no option 'tilecount'"):
            focus(image, tilecount=(2, 2))

    @pytest.mark.parametrize(("given", "said"), [(noise(), "this is an array"), ("a.tif", "this is 'a.tif'")])
    def test_what_is_no_image_is_refused_with_how_to_make_one(self, given: Any, said: str):
        with pytest.raises(LinceiError, match=rf"{said}, not an image\. .*Image\.from_array.*open_image"):
            focus(given)

    @pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
    def test_engines_agree(self, engine: str):
        image = gray(noise(300, 300, blur_px=1))
        probabilities = only(focus(image, engine=engine)).probabilities
        expected = by_rule(image.read()[0, 0, 0]).reshape(4, 4, 11)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)

    def test_an_error_while_reading_is_raised_as_it_is(self):
        class Damaged(LazyPixels):
            def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
                if box[3].stop > 1000:
                    raise LinceiError("the file is cut short", "a.tif")
                return super()._read(box)

        with pytest.raises(LinceiError, match=r"a\.tif: the file is cut short"):
            focus(Image(Damaged((1, 1, 1, 20_000, 5000))))


@pytest.fixture(scope="module")
def shipped() -> Model:
    """Give the shipped model for fluorescence."""
    return Model.from_folder(Path(focusqc.__file__).parent / "weights" / "focus-fluorescence")


class TestRealImages:
    @pytest.mark.parametrize(
        "images",
        [
            "he_lymph_node_10x/images/*",
            "he_breast_40x/images/*",
            "he_lymph_node_40x_patches/*/*",
            "he_oral_20x/images/*",
        ],
    )
    def test_real_stained_sections_get_the_model_for_them(
        self, real_data: Path, stand_ins: Path, images: str
    ):
        paths = sorted(real_data.glob(images))[:12]
        assert paths
        for path in paths:
            assert model_for(open_image(path), FocusOptions(), lambda name: name) == "focus-he", path

    def test_sharp_fields_of_nuclei_are_in_focus_and_defocused_ones_are_not(
        self, real_data: Path, shipped: Model
    ):
        for path in sorted((real_data / "bbbc006_focus").glob("*.tif")):
            plane = only(focus(open_image(path), shipped))
            wanted = "yes" if path.name.startswith("sharp") else "no"
            assert plane.in_focus == wanted, (path.name, plane.expected_level)

    def test_the_sharpest_plane_of_real_beads_is_one_of_those_in_the_middle(
        self, real_data: Path, shipped: Model
    ):
        from lincei.pattern import find_inputs

        groups = find_inputs([str(real_data / "beads_zstack" / "{well}_s{field}_w1_step{z}_Z*um.tif")])
        assert len(groups) == 4
        for group in groups:
            rating = focus(group.open(), shipped)
            assert len(rating.planes) == 10
            assert rating.sharpest[0, 0] in (2, 3, 4, 5), group.source

    def test_every_patch_of_a_blank_image_is_uncertain(self, shipped: Model):
        for pixels in (np.zeros((520, 696), np.uint16), np.full((520, 696), 255, np.uint8)):
            plane = only(focus(Image.from_array(pixels), shipped))
            assert plane.certainty_max < 0.2
            assert plane.in_focus == "uncertain"

    def test_gain_offset_and_type_do_not_change_the_rating_of_a_real_image(
        self, real_data: Path, shipped: Model
    ):
        path = next((real_data / "bbbc006_focus").glob("sharp*.tif"))
        pixels = open_image(path).read()[0, 0, 0].astype(np.float64)
        plain = only(focus(open_image(path), shipped))
        for other in (
            (2 * pixels + 300).astype(np.uint16),
            (pixels / 65535).astype(np.float32),
            1e4 * pixels - 1e7,
        ):
            rating = only(focus(Image.from_array(other), shipped))
            np.testing.assert_allclose(rating.probabilities, plain.probabilities, atol=5e-3)

    def test_engine_batches_and_single_patches_agree(self, real_data: Path, shipped: Model):
        path = next((real_data / "bbbc006_focus").glob("defocused*.tif"))
        image = open_image(path)
        plane = only(focus(image, shipped))
        pixels = image.read()[0, 0, 0]
        with open_engine(shipped, engine="onnxruntime") as engine:
            one = engine.run(pixels[None, None, 84:168, 168:252].astype(np.float32))["probabilities"][0]
        np.testing.assert_allclose(plane.probabilities[1, 2], one, atol=1e-4)


def test_nothing_is_warned_of_an_ordinary_image(stand_ins: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        focus(gray(noise()))
