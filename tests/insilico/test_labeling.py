"""What `insilico.label` promises, held with tiny models of random weights."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import TinyModels, gray, stack, variant

from insilico import LabelOptions, label
from insilico.distribution import LogisticMixture
from insilico.labeling import SMALLEST_SIDE_PX
from insilico.options import STATISTICS
from insilico.z_planes import network_planes
from lincei.engine import open_engine
from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.formats.lazy import LazyArray
from lincei.image import Image
from lincei.model import Model, write_model
from lincei.progress import Progress


def mean_of(image: Image, model: Any, **options: Any) -> NDArray[np.float32]:
    return label(image, model, statistics=("mean",), **options)["mean"].read()


def with_outputs(model: Model, folder: Path, names: tuple[str, ...], **changes: Any) -> Model:
    """Write a model again whose network has some of the outputs only."""
    import onnx

    network = onnx.load_model_from_string(model.onnx_path.read_bytes())
    for output in list(network.graph.output):
        if output.name not in names:
            network.graph.output.remove(output)
    card = dataclasses.replace(
        model.card,
        name=folder.name,
        files={},
        onnx_file=None,
        outputs=tuple(tensor for tensor in model.card.outputs if tensor.name in names),
        **changes,
    )
    answers = {name: answer for name, answer in model.test_outputs().items() if name in names}
    return write_model(
        folder, card, onnx=network.SerializeToString(), test_input=model.test_input(), test_outputs=answers
    )


class Reads(LazyArray):
    """An array that notes the largest number of pixels read at once."""

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(array.shape, array.dtype)
        self.array, self.largest = array, 0

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        part = self.array[box]
        self.largest = max(self.largest, part[0, 0, 0].size)
        return part


class TestResult:
    def test_it_has_one_named_and_colored_channel_per_label_on_the_inputs_grid(self, tiny: TinyModels):
        image = gray(stack(3, 70, 90), name="cells", source="cells.tif", pixel_size_um=0.3, z_step_um=1.5)
        result = label(image, "tiny")
        assert set(result) == {"mean", "sd"}
        for picture in result.values():
            assert picture.shape == (1, 2, 1, 70, 90)
            assert picture.read().dtype == np.float32
            assert picture.channel_names == ("DAPI", "MAP2")
            assert picture.channel_colors == ("#0000FF", "#00FF00")
            assert picture.pixel_size_um == 0.3
            assert picture.modality == "fluorescence"
            assert picture.name == "cells"
        assert result["mean"].read().std() > 0.25, (
            "the tiny model must predict something for tests to mean it"
        )

    def test_it_does_not_change_the_input(self, tiny: TinyModels):
        image = gray(stack())
        before = image.read().copy()
        label(image, "tiny", statistics=STATISTICS)
        np.testing.assert_array_equal(image.read(), before)

    def test_times_are_kept_and_computed_each_for_itself(self, tiny: TinyModels):
        first, second = stack(seed=1), stack(seed=2)
        values = (20_000 + 4000 * np.stack([first, second, first])).astype("uint16")
        movie = Image.from_array(values, axes="TZYX", time_step_s=30.0)
        result = label(movie, "tiny")["mean"]
        assert result.shape == (3, 2, 1, 70, 90)
        assert result.time_step_s == 30.0
        pixels = result.read()
        np.testing.assert_array_equal(pixels[0], pixels[2])
        assert abs(pixels[0] - pixels[1]).mean() > 0.1

    def test_a_store_receives_what_otherwise_would_be_in_memory(self, tiny: TinyModels):
        image = gray(stack())
        given: dict[str, NDArray[np.float32]] = {}

        def store(statistic: str, template: Image) -> NDArray[np.float32]:
            assert template.provenance is not None
            assert template.provenance["statistic"] == statistic
            given[statistic] = np.full(template.shape, np.nan, np.float32)
            return given[statistic]

        result = label(image, "tiny", store=store)
        expected = label(image, "tiny")
        assert set(given) == {"mean", "sd"}
        for name, array in given.items():
            np.testing.assert_array_equal(array, expected[name].read())
            assert result[name].data is array

    def test_a_model_may_be_named_or_be_a_folder_or_an_object(self, tiny: TinyModels):
        image = gray(stack())
        expected = mean_of(image, "tiny")
        for model in (tiny.three, tiny.three.folder, str(tiny.three.folder), [tiny.three]):
            np.testing.assert_array_equal(mean_of(image, model), expected)
        np.testing.assert_array_equal(
            label(image, options=LabelOptions(model=("tiny",)))["mean"].read(), expected
        )


class TestTiles:
    """The result is the same to 1e-5 of the normalized scale however the image is cut."""

    @pytest.mark.parametrize(("height", "width"), [(70, 90), (17, 131), (64, 64), (21, 16), (101, 37)])
    def test_the_tile_size_does_not_change_the_result(self, tiny: TinyModels, height: int, width: int):
        image = gray(stack(3, height, width))
        whole = label(image, "tiny", statistics=("mean", "sd", "q95"), tile_px=1024)
        for tile_px in (16, 28, 33, 64):
            cut = label(image, "tiny", statistics=("mean", "sd", "q95"), tile_px=tile_px)
            for name, picture in whole.items():
                assert abs(picture.read() - cut[name].read()).max() < 1e-5, (name, tile_px)

    @pytest.mark.parametrize("pixel_size_um", [0.17, 0.3, 0.49, 0.56, 0.8, 1.7])
    def test_nor_does_it_when_the_image_is_resampled(self, tiny: TinyModels, pixel_size_um: float):
        image = gray(stack(3, 123, 87), pixel_size_um=pixel_size_um, z_step_um=2.0)
        whole = label(image, "tiny-scaled", tile_px=2048)
        for tile_px in (16, 40, 100):
            cut = label(image, "tiny-scaled", tile_px=tile_px)
            for name, picture in whole.items():
                assert np.isfinite(cut[name].read()).all()
                assert abs(picture.read() - cut[name].read()).max() < 1e-5, (name, tile_px)

    def test_every_pixel_of_a_resampled_image_is_written_at_extreme_factors(self, tiny: TinyModels):
        for pixel_size_um, side in ((4.9, 20), (0.051, 200)):
            image = gray(stack(3, side, side + 3), pixel_size_um=pixel_size_um, z_step_um=2.0)

            def store(_: str, template: Image) -> NDArray[np.float32]:
                return np.full(template.shape, np.nan, np.float32)

            cut = label(image, "tiny-scaled", statistics=("mean",), store=store, tile_px=16)["mean"].read()
            assert np.isfinite(cut).all()
            assert abs(cut - mean_of(image, "tiny-scaled")).max() < 1e-5

    @pytest.mark.parametrize("pixel_size_um", [None, 0.31])
    def test_only_tiles_with_their_surroundings_are_read_at_once(
        self, tiny: TinyModels, pixel_size_um: float | None
    ):
        reads = Reads(gray(stack(1, 700, 600)).read())

        def store(_: str, template: Image) -> NDArray[np.float32]:
            reads.largest = 0  # before the tiles, the scaling looked at whole planes
            return np.empty(template.shape, np.float32)

        model = "tiny-one" if pixel_size_um is None else "tiny-scaled"
        image = Image(reads, pixel_size_um=pixel_size_um)
        label(image, model, store=store, tile_px=64, statistics=("mean",))
        side = 64 + 2 * (tiny.three.card.halo_px + 8)
        side *= 1 if pixel_size_um is None else 0.5 / pixel_size_um
        assert 0 < reads.largest <= (side + 8) ** 2


class TestIntensities:
    @pytest.mark.parametrize(("gain", "offset"), [(0.2, 0), (1, 3000), (2.5, -20_000), (0.01, 60_000)])
    def test_gain_and_offset_do_not_change_the_result(self, tiny: TinyModels, gain: float, offset: float):
        values = (20_000 + 4000 * stack()).astype("float32")
        plain = mean_of(Image.from_array(values, "ZYX"), "tiny")
        changed = Image.from_array((values.astype("float64") * gain + offset).astype("float64"), "ZYX")
        assert abs(mean_of(changed, "tiny") - plain).max() < 1e-4

    def test_nor_does_the_way_in_which_a_camera_stores_the_same_gray_values(self, tiny: TinyModels):
        eight = np.clip(128 + 25 * stack(), 0, 255).astype("uint8")
        results = [
            mean_of(Image.from_array(values, "ZYX"), "tiny")
            for values in (
                eight,
                eight.astype("uint16") * 257,
                eight.astype("uint32") * 1000,
                eight.astype("int16") - 128,
                eight.astype("float32") / 255,
                eight.astype("float64"),
                eight.astype(">u2"),
            )
        ]
        for other in results[1:]:
            assert abs(other - results[0]).max() < 1e-4

    def test_a_coarser_bit_depth_changes_little(self, tiny: TinyModels):
        pixels = stack()
        fine, coarse = (mean_of(gray(pixels, dtype), "tiny") for dtype in ("float32", "uint8"))
        assert abs(fine - coarse).mean() < 0.05 * fine.std()

    def test_dust_does_not_reach_further_than_the_network_sees(self, tiny: TinyModels):
        pixels = stack(3, 96, 160)
        dusty = pixels.copy()
        dusty[:, 40:44, 10:14] = 1e6
        clean, dirty = (mean_of(Image.from_array(p, "ZYX"), "tiny") for p in (pixels, dusty))
        far = slice(14 + tiny.three.card.halo_px, None)
        near = abs(clean - dirty)[..., 40:44, 10:14].max()
        # The percentiles of the intensity scaling move a little with it.
        assert abs(clean - dirty)[..., far].max() < 0.05 < 0.1 * near

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("pixel_size_um", [None, 0.3])
    def test_pixels_that_are_no_numbers_are_refused(
        self, tiny: TinyModels, bad: float, pixel_size_um: float | None
    ):
        pixels = stack().astype("float32")
        pixels[1, 33, 44] = bad
        image = Image.from_array(pixels, "ZYX", source="bad.tif", pixel_size_um=pixel_size_um, z_step_um=2.0)
        with pytest.raises(LinceiError, match=r"bad\.tif: .*NaN or infinite.*Replace"):
            label(image, "tiny-scaled")

    def test_they_are_found_where_the_scaling_did_not_look(self, tiny: TinyModels):
        pixels = np.tile(stack(1, 128, 128).astype("float32"), (1, 10, 10))
        pixels[0, 641, 533] = np.nan
        from lincei.normalize import sample_channel

        image = Image.from_array(np.stack([pixels[0], pixels[0]]), "CYX", channel_names=("phase", "dead"))
        image.read()[0, 1] = 0
        assert np.isfinite(sample_channel(image, 0)).all(), "the sample must miss the bad pixel"
        with pytest.raises(LinceiError, match="NaN"):
            label(image, "tiny-one", tile_px=256)

    def test_a_constant_image_is_refused(self, tiny: TinyModels):
        image = Image.from_array(np.full((3, 40, 40), 7, "uint16"), "ZYX", source="dark.tif")
        with pytest.raises(LinceiError, match=r"dark\.tif: .*same value everywhere.*shutter"):
            label(image, "tiny")


class TestPlanes:
    @pytest.mark.parametrize("planes", [1, 2, 3, 4, 7, 20])
    @pytest.mark.parametrize("model", ["tiny", "tiny-one"])
    def test_any_number_of_planes_gives_one_projected_plane(self, tiny: TinyModels, planes: int, model: str):
        assert mean_of(gray(stack(planes)), model).shape == (1, 2, 1, 70, 90)

    def test_a_single_plane_stands_for_all(self, tiny: TinyModels):
        single = stack(1)
        assert (
            abs(mean_of(gray(single), "tiny") - mean_of(gray(np.repeat(single, 3, axis=0)), "tiny")).max()
            < 1e-5
        )

    def test_a_finer_z_step_over_the_same_depth_gives_nearly_the_same(self, tiny: TinyModels):
        coarse = stack(3)
        fine = np.stack(
            [coarse[0], (coarse[0] + coarse[1]) / 2, coarse[1], (coarse[1] + coarse[2]) / 2, coarse[2]]
        )
        images = [
            gray(pixels, "float32", z_step_um=step, pixel_size_um=0.5)
            for pixels, step in ((coarse, 2.0), (fine, 1.0))
        ]
        results = [mean_of(image, "tiny-scaled") for image in images]
        # The intensity scaling is measured on other planes: a small difference remains.
        assert abs(results[0] - results[1]).mean() < 0.02 * results[0].std()

    def test_a_z_step_given_as_an_option_goes_before_the_images_own(self, tiny: TinyModels):
        image = gray(stack(5), z_step_um=2.0, pixel_size_um=0.5)
        own = mean_of(image, "tiny-scaled")
        np.testing.assert_array_equal(mean_of(image, "tiny-scaled", z_step_um=2.0), own)
        assert abs(mean_of(image, "tiny-scaled", z_step_um=1.0) - own).max() > 0.01

    def test_drift_is_reported_in_pixels_and_warned_about_above_one(self, tiny: TinyModels):
        plane = stack(1, 200, 200)[0]
        steady = gray(np.stack([plane] * 3), name="steady")
        moved = gray(np.stack([np.roll(plane, 3 * k, axis=1) for k in range(3)]), name="moved")
        heard: list[str] = []
        result = label(steady, "tiny", progress=lambda update: heard.append(update.message))["mean"]
        assert any("steady: the z planes are shifted sideways by 0.0 pixels" in text for text in heard)
        assert result.provenance is not None
        assert result.provenance["z_drift_px"] == 0
        with pytest.warns(LinceiWarning, match=r"moved: .*shifted sideways by up to 3\.\d pixels"):
            result = label(moved, "tiny")["mean"]
        assert result.provenance is not None
        assert result.provenance["z_drift_px"] == pytest.approx(3, abs=0.2)


class TestChannels:
    def image(self, names: tuple[str, ...] = (), position: int = 1) -> tuple[Image, Image]:
        pixels = [20_000 + 4000 * stack(3, seed=seed) for seed in (1, 2, 3)]
        values = np.stack(pixels).astype("uint16")
        many = Image.from_array(values, "CZYX", channel_names=names)
        return many, Image.from_array(values[position], "ZYX")

    @pytest.mark.parametrize("channel", ["Phase 10x", "phase 10X", "1"])
    def test_one_of_several_is_chosen_by_name_or_number(self, tiny: TinyModels, channel: str):
        many, one = self.image(("GFP", "Phase 10x", "Brightfield"))
        np.testing.assert_array_equal(mean_of(many, "tiny", channel=channel), mean_of(one, "tiny"))

    @pytest.mark.parametrize(
        "name",
        ["Phase", "phase-contrast", "TL_Brightfield", "BF", "DIC N2", "trans PMT", "Transmitted light"],
    )
    def test_it_is_recognized_by_its_name(self, tiny: TinyModels, name: str):
        many, one = self.image(("DAPI", name, "Cy5"))
        np.testing.assert_array_equal(mean_of(many, "tiny"), mean_of(one, "tiny"))

    @pytest.mark.parametrize(
        "names", [(), ("a", "b", "c"), ("phase", "bf", "GFP"), ("Alphabet", "Diced", "Phosphor")]
    )
    def test_it_is_asked_for_when_it_is_not_clear(self, tiny: TinyModels, names: tuple[str, ...]):
        many, _ = self.image(names)
        listed = re.escape(names[0] if names else "channel 0")
        with pytest.raises(LinceiError, match=rf"3 channels.*--channel.*0 \({listed}\)"):
            label(many, "tiny")

    @pytest.mark.parametrize("channel", ["GFP", "3", "-1", "²"])
    def test_a_channel_that_is_not_there_is_refused(self, tiny: TinyModels, channel: str):
        many, _ = self.image(("a", "b", "c"))
        with pytest.raises(UsageError, match=r"no channel .*There are: 0 \(a\), 1 \(b\), 2 \(c\)"):
            label(many, "tiny", channel=channel)

    def test_a_color_image_is_refused(self, tiny: TinyModels):
        values = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype("uint8")
        with pytest.raises(LinceiError, match=r"he\.tif: this is a color \(RGB\) image.*gray"):
            label(Image.from_array(values, "YXS", source="he.tif"), "tiny")


class TestModality:
    def test_an_image_of_another_modality_is_refused_with_what_to_do(self, tiny: TinyModels):
        image = gray(stack(), modality="bright field", source="a.tif")
        with pytest.raises(
            LinceiError,
            match=r"a\.tif: this is a bright field image, and the model 'tiny' expects phase contrast\. "
            r"Choose a model for bright field, or pass --modality 'phase contrast'",
        ):
            label(image, "tiny")
        label(image, "tiny", modality="phase contrast")
        label(image, "tiny-bright")

    def test_a_fluorescence_image_is_not_sent_to_another_model(self, tiny: TinyModels):
        with pytest.raises(LinceiError, match="Take the transmitted-light image of the same field"):
            label(gray(stack(), modality="fluorescence"), "tiny")

    def test_all_models_must_suit(self, tiny: TinyModels):
        with pytest.raises(LinceiError, match="'tiny-bright' expects bright field"):
            label(gray(stack(), modality="phase contrast"), ["tiny", "tiny-bright"])

    def test_an_unknown_modality_is_taken_as_the_models(self, tiny: TinyModels):
        label(gray(stack()), "tiny-bright")


class TestPixelSize:
    def test_the_result_of_a_resampled_image_lies_on_its_own_grid(self, tiny: TinyModels):
        """Enlarging an image and telling so leaves the prediction where it was."""
        from lincei.pixel_size import resampled

        pixels = stack(3, 96, 80)
        enlarged = np.moveaxis(resampled(np.moveaxis(pixels, 0, -1), 2.0), -1, 0)
        plain = gray(pixels, "float32", pixel_size_um=0.5, z_step_um=2.0)
        large = gray(enlarged, "float32", pixel_size_um=0.25, z_step_um=2.0)
        small_result, large_result = (mean_of(image, "tiny-scaled") for image in (plain, large))
        assert large_result.shape == (1, 2, 1, 192, 160)
        back = large_result.reshape(1, 2, 1, 96, 2, 80, 2).mean(axis=(4, 6))
        inside = (..., slice(8, -8), slice(8, -8))
        assert np.corrcoef(back[inside].ravel(), small_result[inside].ravel())[0, 1] > 0.9
        assert np.corrcoef(np.roll(back, 1, -1)[inside].ravel(), small_result[inside].ravel())[0, 1] < 0.9
        # Without its pixel size the same image gives something else.
        unscaled = mean_of(gray(enlarged, "float32"), "tiny").reshape(1, 2, 1, 96, 2, 80, 2).mean(axis=(4, 6))
        assert np.corrcoef(unscaled[inside].ravel(), small_result[inside].ravel())[0, 1] < 0.9

    def test_nothing_is_resampled_where_the_model_does_not_know_its_size(self, tiny: TinyModels):
        pixels = stack()
        np.testing.assert_array_equal(
            mean_of(gray(pixels, pixel_size_um=3.0), "tiny"), mean_of(gray(pixels), "tiny")
        )

    def test_an_equal_size_is_not_resampled(self, tiny: TinyModels):
        pixels = stack()
        plain = mean_of(gray(pixels), "tiny")
        image = gray(pixels, pixel_size_um=0.505, z_step_um=2.0)
        np.testing.assert_array_equal(mean_of(image, "tiny-scaled"), plain)

    def test_a_missing_size_is_warned_about_and_the_result_says_so(self, tiny: TinyModels):
        pixels = stack()
        with pytest.warns(LinceiWarning) as heard:
            result = label(gray(pixels), "tiny-scaled")["mean"]
        assert len(heard) == 1
        text = str(heard[0].message)
        assert "pixel size and the z step of the input is not known" in text
        assert "--pixel-size-um and --z-step-um" in text
        assert heard[0].filename == __file__
        assert result.provenance is not None
        assert result.provenance["scale_assumed"] is True
        np.testing.assert_array_equal(result.read(), mean_of(gray(pixels), "tiny"))

    def test_a_size_that_is_known_or_not_needed_is_not_warned_about(self, tiny: TinyModels):
        for image, model, options in (
            (gray(stack()), "tiny", {}),
            (gray(stack(), pixel_size_um=0.4, z_step_um=1.0), "tiny-scaled", {}),
            (gray(stack()), "tiny-scaled", {"pixel_size_um": 0.4, "z_step_um": 1.0}),
            (gray(stack(1), pixel_size_um=0.4), "tiny-scaled", {}),
        ):
            result = label(image, model, **options)["mean"]
            assert result.provenance is not None
            assert result.provenance["scale_assumed"] is False

    def test_a_size_given_as_an_option_goes_before_the_images_own(self, tiny: TinyModels):
        pixels = stack()
        expected = mean_of(gray(pixels, pixel_size_um=0.3, z_step_um=2.0), "tiny-scaled")
        wrong = gray(pixels, pixel_size_um=0.5, z_step_um=2.0)
        np.testing.assert_array_equal(mean_of(wrong, "tiny-scaled", pixel_size_um=0.3), expected)
        assert label(wrong, "tiny-scaled", pixel_size_um=0.3)["mean"].pixel_size_um == 0.3

    @pytest.mark.parametrize("pixel_size_um", [0.001, 300.0])
    def test_a_size_that_cannot_be_meant_is_refused(self, tiny: TinyModels, pixel_size_um: float):
        with pytest.raises(LinceiError, match=r"too far apart\. .*micrometers with --pixel-size-um"):
            label(gray(stack(), pixel_size_um=pixel_size_um), "tiny-scaled")

    def test_two_models_work_each_at_its_own_size(self, tiny: TinyModels, tmp_path: Path):
        coarse = variant(tiny.three, tmp_path / "coarse", pixel_size_um=1.0, z_step_um=2.0)
        image = gray(stack(3, 80, 80), pixel_size_um=0.5, z_step_um=2.0)
        both = mean_of(image, [tiny.scaled, coarse])
        np.testing.assert_array_equal(both[:, :2], mean_of(image, tiny.scaled))
        np.testing.assert_array_equal(both[:, 2:], mean_of(image, coarse))


class TestSize:
    def test_too_few_pixels_are_refused(self, tiny: TinyModels):
        with pytest.raises(LinceiError, match=r"small\.tif: .*too few pixels \(15 x 90\).*16 pixels or more"):
            label(gray(stack(3, SMALLEST_SIDE_PX - 1, 90), source="small.tif"), "tiny")

    def test_the_smallest_image_is_labeled(self, tiny: TinyModels):
        image = gray(stack(3, SMALLEST_SIDE_PX, SMALLEST_SIDE_PX))
        assert mean_of(image, "tiny").shape[3:] == (SMALLEST_SIDE_PX, SMALLEST_SIDE_PX)

    def test_so_are_too_few_at_the_models_pixel_size(self, tiny: TinyModels):
        with pytest.raises(LinceiError, match=r"shows too little \(40 x 40 pixels of 0\.1 um.*0\.5 um\)"):
            label(gray(stack(3, 40, 40), pixel_size_um=0.1), "tiny-scaled")


class TestModels:
    def test_labels_of_several_models_are_joined_and_clashing_names_told_apart(self, tiny: TinyModels):
        image = gray(stack())
        result = label(image, ["tiny", "tiny-one"])["mean"]
        assert result.channel_names == ("DAPI (tiny)", "MAP2 (tiny)", "DAPI (tiny-one)", "MAP2 (tiny-one)")
        assert result.channel_colors == ("#0000FF", "#00FF00") * 2
        np.testing.assert_array_equal(result.read()[:, :2], mean_of(image, "tiny"))
        np.testing.assert_array_equal(result.read()[:, 2:], mean_of(image, "tiny-one"))

    def test_names_that_do_not_clash_stay(self, tiny: TinyModels, tmp_path: Path):
        card = tiny.one.card
        renamed = tuple(dataclasses.replace(label, name=f"{label.name}x") for label in card.labels)
        other = variant(tiny.one, tmp_path / "other", labels=renamed)
        assert label(gray(stack()), [tiny.three, other])["mean"].channel_names == (
            "DAPI", "MAP2", "DAPIx", "MAP2x",
        )  # fmt: skip

    def test_models_of_one_name_are_numbered(self, tiny: TinyModels, tmp_path: Path):
        other = variant(tiny.one, tmp_path / "tiny")
        names = label(gray(stack()), [tiny.three, other], labels=("DAPI",))["mean"].channel_names
        assert names == ("DAPI (tiny) 1", "DAPI (tiny) 2")

    def test_one_that_is_named_twice_counts_once(self, tiny: TinyModels):
        names = label(gray(stack()), ["tiny", "tiny", tiny.three])["mean"].channel_names
        assert names == ("DAPI", "MAP2")

    def test_only_the_wanted_labels_are_given_and_other_models_left_out(
        self, tiny: TinyModels, tmp_path: Path
    ):
        card = tiny.one.card
        renamed = tuple(dataclasses.replace(label, name=f"{label.name}x") for label in card.labels)
        other = variant(tiny.one, tmp_path / "other", labels=renamed)
        image = gray(stack())
        result = label(image, [tiny.three, other], labels=("MAP2",), statistics=("mean", "q95"))
        whole = label(image, tiny.three, statistics=("mean", "q95"))
        for name, picture in result.items():
            assert picture.channel_names == ("MAP2",)
            assert picture.channel_colors == ("#00FF00",)
            np.testing.assert_array_equal(picture.read()[:, 0], whole[name].read()[:, 1])
        assert result["mean"].provenance is not None
        assert [m["name"] for m in result["mean"].provenance["models"]] == ["tiny"]
        assert result["mean"].provenance["models"][0]["labels"] == ["MAP2"]

    def test_a_label_that_no_model_gives_is_refused(self, tiny: TinyModels):
        with pytest.raises(UsageError, match=r"no label 'NFH'.*DAPI, MAP2"):
            label(gray(stack()), "tiny", labels=("DAPI", "NFH"))

    def test_a_model_that_is_not_there_is_refused_with_the_nearest_name(self, tiny: TinyModels):
        with pytest.raises(LinceiError, match=r"no model 'tinny'.*Did you mean.*tiny"):
            label(gray(stack()), "tinny")

    def test_nothing_asked_for_is_refused(self, tiny: TinyModels):
        with pytest.raises(UsageError, match="no model is named"):
            label(gray(stack()), [])
        with pytest.raises(UsageError, match="no statistic is named"):
            label(gray(stack()), "tiny", statistics=())

    def test_a_halo_that_is_no_multiple_of_the_stride_is_rounded_up(self, tiny: TinyModels, tmp_path: Path):
        odd = variant(tiny.three, tmp_path / "odd", halo_px=tiny.three.card.halo_px - 1)
        image = gray(stack())
        np.testing.assert_allclose(mean_of(image, odd), mean_of(image, "tiny"), atol=1e-5)

    def test_an_imported_model_that_only_gives_means_says_what_to_ask_for(
        self, tiny: TinyModels, tmp_path: Path
    ):
        card = tiny.three.card
        bare = with_outputs(tiny.three, tmp_path / "bare", ("mean",), distribution={})
        image = gray(stack())
        with pytest.raises(LinceiError, match=r"model bare: .*does not give the sd.*--statistics mean\."):
            label(image, bare)
        np.testing.assert_array_equal(mean_of(image, bare), mean_of(image, "tiny"))
        unknown = variant(tiny.three, tmp_path / "unknown", distribution={"kind": "histogram"})
        with pytest.raises(LinceiError, match="does not give the median and the entropy"):
            label(image, unknown, statistics=("mean", "median", "entropy"))
        kept = variant(tiny.three, tmp_path / "kept", z_output="kept")
        with pytest.raises(LinceiError, match="z planes of a gray stack into one plane"):
            label(image, kept)
        assert card.z_output == "projected"

    def test_sd_is_computed_from_the_distribution_where_the_network_does_not_give_it(
        self, tiny: TinyModels, tmp_path: Path
    ):
        without = with_outputs(tiny.three, tmp_path / "without", ("mean", "parameters"))
        image = gray(stack())
        np.testing.assert_allclose(
            label(image, without)["sd"].read(), label(image, "tiny")["sd"].read(), atol=1e-5
        )


class TestStatistics:
    @pytest.fixture
    def all_of_them(self, tiny: TinyModels) -> dict[str, NDArray[np.float32]]:
        result = label(gray(stack(3, 60, 50)), "tiny", statistics=STATISTICS)
        assert tuple(result) == STATISTICS
        return {name: image.read() for name, image in result.items()}

    def test_quantiles_are_in_order(self, all_of_them: dict[str, NDArray[np.float32]]):
        assert (all_of_them["q05"] < all_of_them["median"]).all()
        assert (all_of_them["median"] < all_of_them["q95"]).all()

    def test_all_are_those_of_the_networks_mixture(
        self, tiny: TinyModels, all_of_them: dict[str, NDArray[np.float32]]
    ):
        """Taken here from the network's parameters with sums over a fine grid of values, not closed forms."""
        image = gray(stack(3, 60, 50))
        from lincei.normalize import standard_scaling
        from lincei.tiles import plan_tiles, read_tile

        halo = tiny.three.card.halo_px
        tile = plan_tiles(60, 50, 1024, 4)[0]
        eye = np.eye(3, dtype=np.float32)
        scaled = network_planes(read_tile(image, tile, halo), standard_scaling(image), eye)
        with open_engine(tiny.three) as engine:
            outputs = engine.run(scaled[None])
        inside = (slice(halo, halo + 60), slice(halo, halo + 50))
        mixtures = LogisticMixture.from_parameters(outputs["parameters"][0][(slice(None), *inside)], 2)
        random = np.random.default_rng(0)
        for channel, mixture in enumerate(mixtures):
            for y, x in zip(random.integers(0, 60, 12), random.integers(0, 50, 12), strict=True):
                weights, locations, scales = (
                    part[:, y, x].astype(float)
                    for part in (mixture.weights, mixture.locations, mixture.scales)
                )
                assert weights.sum() == pytest.approx(1, abs=1e-5)
                reach = 40 * scales.max()
                values = np.linspace(locations.min() - reach, locations.max() + reach, 400_001)
                step = values[1] - values[0]
                z = (values[:, None] - locations) / (2 * scales)
                density = (weights / (4 * scales) / np.cosh(np.clip(z, -300, 300)) ** 2).sum(axis=1)
                cumulative = np.cumsum(density) * step
                mean = (values * density).sum() * step
                expected = {
                    "mean": mean,
                    "sd": np.sqrt(((values - mean) ** 2 * density).sum() * step),
                    "median": np.interp(0.5, cumulative, values),
                    "q05": np.interp(0.05, cumulative, values),
                    "q95": np.interp(0.95, cumulative, values),
                    "entropy": -(density * np.log(np.maximum(density, 1e-300))).sum() * step,
                }
                found = {name: array[0, channel, 0, y, x] for name, array in all_of_them.items()}
                for name, value in expected.items():
                    tolerance = 0.02 if name == "entropy" else 2e-3
                    assert found[name] == pytest.approx(value, abs=tolerance), name
                # Where two peaks are nearly as high, either may be found: the density counts, not the place.
                assert np.interp(found["mode"], values, density) > 0.999 * density.max()

    def test_asking_for_more_does_not_change_the_mean(
        self, tiny: TinyModels, all_of_them: dict[str, NDArray[np.float32]]
    ):
        alone = mean_of(gray(stack(3, 60, 50)), "tiny")
        assert abs(alone - all_of_them["mean"]).max() < 1e-5

    def test_one_without_the_mean_may_be_asked_for(self, tiny: TinyModels):
        assert set(label(gray(stack()), "tiny", statistics=("entropy",))) == {"entropy"}

    def test_one_that_there_is_not_is_refused(self, tiny: TinyModels):
        with pytest.raises(UsageError, match=r"--statistics is 'variance'.*Choose from: mean, median"):
            label(gray(stack()), "tiny", statistics=("variance",))


class TestEngines:
    def test_openvino_and_onnx_runtime_agree(self, tiny: TinyModels):
        pytest.importorskip("openvino")
        pytest.importorskip("onnxruntime")
        image = gray(stack(3, 150, 130))
        first, second = (
            label(image, "tiny", engine=engine, statistics=STATISTICS)
            for engine in ("openvino", "onnxruntime")
        )
        for name in STATISTICS:
            off = abs(first[name].read() - second[name].read())
            if name == "mode":  # of two peaks as high, either is the mode
                assert np.quantile(off, 0.99) < 1e-3, f"{name} is off by {np.quantile(off, 0.99):.2g}"
            else:
                assert off.max() < 1e-3, f"{name} is off by {off.max():.2g}"
        engines = [result["mean"].provenance["engine"][0] for result in (first, second)]  # type: ignore[index]
        assert engines[0].startswith("openvino")
        assert engines[1].startswith("onnxruntime")

    def test_one_thread_gives_the_same(self, tiny: TinyModels):
        image = gray(stack())
        assert abs(mean_of(image, "tiny", threads=1) - mean_of(image, "tiny")).max() < 1e-5


class TestProvenance:
    def test_it_tells_how_the_result_came_about(self, tiny: TinyModels):
        image = gray(stack(), source="/data/cells.tif", pixel_size_um=0.5)
        result = label(image, tiny.three, statistics=("sd",), tile_px=64)["sd"]
        told = json.loads(json.dumps(result.provenance))
        assert told["predicted"] is True
        assert "not measured" in told["note"]
        assert told["statistic"] == "sd"
        assert told["source"] == "/data/cells.tif"
        assert told["models"] == [
            {
                "name": "tiny",
                "version": tiny.three.card.created,
                "hash": tiny.three.hash,
                "labels": ["DAPI", "MAP2"],
                "out_of_distribution": None,
            }
        ]
        assert told["models"][0]["version"]
        assert told["parameters"]["model"] == ["tiny"], "what was used, not the option's default"
        assert told["parameters"]["tile_px"] == 64
        assert told["intensity_scaling"]["unit"] > 0
        again = LabelOptions.from_mapping(told["parameters"])
        np.testing.assert_array_equal(label(image, options=again)["sd"].read(), result.read())


class TestProgressAndCancelling:
    def test_progress_counts_all_tiles_times_and_models_once(self, tiny: TinyModels):
        movie = Image.from_array((20_000 + 4000 * np.stack([stack(), stack()])).astype("uint16"), "TZYX")
        heard: list[Progress] = []
        label(movie, ["tiny", "tiny-one"], tile_px=32, progress=heard.append)
        tiles = [update for update in heard if update.stage == "labeling"]
        total = 2 * 2 * 3 * 3
        assert [update.done for update in tiles] == list(range(1, total + 1))
        assert {update.total for update in tiles} == {total}
        assert heard[0].stage == "reading"

    def test_cancelling_stops_between_tiles(self, tiny: TinyModels):
        heard: list[Progress] = []

        def cancelled() -> bool:
            return sum(update.stage == "labeling" for update in heard) >= 3

        with pytest.raises(CancelledError):
            label(gray(stack()), "tiny", tile_px=16, progress=heard.append, cancelled=cancelled)
        assert heard[-1].done < heard[-1].total

    @pytest.mark.parametrize(
        "broken",
        [lambda: OSError(28, "No space left on device"), lambda: LinceiError("the file is gone", "a.tif")],
    )
    def test_what_goes_wrong_while_writing_reaches_the_caller(
        self, tiny: TinyModels, broken: Callable[[], Exception]
    ):
        class Broken:
            shape = (1, 2, 1, 70, 90)

            def __setitem__(self, key: Any, value: Any) -> None:
                raise broken()

        with pytest.raises(type(broken())):
            label(gray(stack()), "tiny", tile_px=16, store=lambda *_: Broken())


def test_a_default_call_warns_of_nothing(tiny: TinyModels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label(gray(stack()), "tiny")
