"""How unlike the training images an image looks: the score, its way into a card, and its way to the user."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from tiny_models import TinyModels, gray, variant

from insilico import label
from insilico.out_of_distribution import (
    DESCRIPTORS,
    PATCH_PX,
    Reference,
    descriptors,
    fit_reference,
    in_words,
    patch_places,
    planes_described,
    reference_of,
    score_image,
)
from insilico.z_planes import network_planes, plane_weights
from lincei.errors import LinceiError, LinceiWarning
from lincei.formats.lazy import LazyArray
from lincei.image import Image
from lincei.model import Model
from lincei.model_card import Card
from lincei.normalize import standard_scaling
from lincei.pattern import find_inputs
from lincei.tiles import mirrored

Array = NDArray[np.float32]


def specks(seed: int, *, size: int = 400, planes: int = 3, radius: float = 3.0) -> NDArray[np.float64]:
    """Return a stack (Z, Y, X) of dark specks that go through focus, on a bright and noisy ground."""
    random = np.random.default_rng(seed)
    points = np.zeros((size, size))
    points[tuple(random.integers(0, size, (2, size**2 // 400)))] = -1
    focus = np.linspace(-1, 1, planes) if planes > 1 else np.zeros(1)
    stack = []
    for distance in focus:
        blurred = ndimage.gaussian_filter(points, radius * (1 + abs(distance)))
        stack.append(blurred - ndimage.gaussian_filter(points, 2.5 * radius))
    pixels = np.array(stack)
    pixels /= pixels.std()
    return pixels + random.normal(scale=0.1, size=pixels.shape)


def noise(seed: int, *, size: int = 400, planes: int = 3) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(planes, size, size))


def seen(image: Image, planes: int) -> Array:
    """Return an image as a network of so many planes sees it."""
    weights = plane_weights(image.shape[2], planes)
    stack = network_planes(image.read()[0, 0], standard_scaling(image), weights)
    return np.ascontiguousarray(np.moveaxis(stack, 0, -1))


def field(pixels: NDArray[np.float64], **fields: Any) -> Image:
    """Return a stack as an image of any range, which `gray` would cut off."""
    return gray(pixels, "float32", **fields)


def stack_of(pixels: NDArray[np.float64], planes: int = 3) -> Array:
    return seen(field(pixels), planes)


@pytest.fixture(scope="module")
def reference() -> Reference:
    """What images of specks look like."""
    return fit_reference(
        {"specks": [stack_of(specks(seed)) for seed in range(3)]},
        {"specks": [stack_of(specks(seed)) for seed in (10, 11)]},
    )


@pytest.fixture(scope="module")
def informed(tiny_models_once: TinyModels, reference: Reference, tmp_path_factory: Any) -> Model:
    """A tiny model that knows what it was trained on."""
    folder = tmp_path_factory.mktemp("informed") / "informed"
    return variant(tiny_models_once.three, folder, out_of_distribution=reference.to_json())


class TestDescriptors:
    def test_turning_and_mirroring_a_patch_changes_nothing(self):
        # Of an odd side, so that each coarser band is made of the same pixels.
        patch = stack_of(specks(1))[:129, :129].transpose(2, 0, 1)
        turned = [patch, np.rot90(patch, axes=(1, 2)), patch[:, ::-1], patch[:, :, ::-1]]
        described = descriptors(turned)
        assert described.shape == (4, len(DESCRIPTORS))
        np.testing.assert_allclose(described, described[:1].repeat(4, axis=0), atol=1e-3)

    def test_uneven_light_is_only_in_the_coarsest(self):
        patch = stack_of(specks(1))[:128, :128].transpose(2, 0, 1)
        slope = np.linspace(-2, 2, 128, dtype=np.float32)
        even, uneven = descriptors([patch, patch + slope])
        changed = [name for name, a, b in zip(DESCRIPTORS, even, uneven, strict=True) if abs(a - b) > 0.3]
        assert set(changed) <= {"power of the rest", *(f"coherence {band}" for band in range(5))}
        assert "power of the rest" in changed

    @pytest.mark.parametrize("side", [16, 40, 64, 100])
    def test_patches_of_any_size_and_of_one_value_have_finite_descriptors(self, side: int):
        flat = np.zeros((1, side, side + 5), np.float32)
        assert np.isfinite(descriptors([flat, flat + 3])).all()


class TestPlaces:
    @pytest.mark.parametrize("size", [(16, 16), (100, 3000), (520, 696), (20_000, 20_000)])
    def test_they_are_few_spread_evenly_and_within_the_image(self, size: tuple[int, int]):
        places = patch_places(*size)
        assert 1 <= len(places) <= 25
        assert len(set(map(str, places))) == len(places)
        for place in places:
            for part, length in zip(place, size, strict=True):
                assert part.start >= 0
                assert part.stop <= length
                assert part.stop - part.start == min(PATCH_PX, length)
        for axis, length in enumerate(size):
            assert min(place[axis].start for place in places) == 0
            assert max(place[axis].stop for place in places) == length

    def test_planes_are_the_first_the_middle_and_the_last(self):
        assert planes_described(2) == [0, 1]
        assert planes_described(5) == [0, 2, 4]


class TestScore:
    def test_images_of_the_same_kind_are_within_the_limit(self, reference: Reference):
        for seed in (20, 21):
            found = reference.score_stack(stack_of(specks(seed)))
            assert found.score < 1
            assert found.share_outside < 0.1
            assert not found.empty
            assert found.nearest == "specks"

    def test_another_day_is_within_the_limit(self, reference: Reference):
        day = specks(22) + np.random.default_rng(1).normal(scale=0.05, size=(3, 400, 400))
        assert reference.score_stack(stack_of(1.2 * day + 0.1)).score < 1

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(-specks(30), id="contrast turned over"),
            pytest.param(ndimage.gaussian_filter(specks(30), (0, 5, 5)), id="defocused"),
            pytest.param(specks(30, radius=7.0), id="twice the magnification"),
            pytest.param(np.gradient(specks(30), axis=2), id="differential contrast"),
            pytest.param(np.exp(-specks(30)), id="bright on dark"),
            pytest.param(noise(30), id="camera noise"),
        ],
    )
    def test_others_are_beyond_it(self, reference: Reference, other: NDArray[np.float64]):
        found = reference.score_stack(stack_of(other / other.std()))
        assert found.score > 1.3
        assert found.share_outside > 0.5

    def test_nothing_but_noise_is_told_from_something_unlike(self, reference: Reference):
        slope = np.linspace(0, 4, 400)
        assert reference.score_stack(stack_of(noise(1))).empty
        assert reference.score_stack(stack_of(noise(1) + slope)).empty
        assert not reference.score_stack(stack_of(-specks(30))).empty

    def test_one_spoiled_patch_among_many_does_not_make_another_image(self, reference: Reference):
        stack = stack_of(specks(23, size=700))
        stack[:128, :128] = stack_of(noise(3, size=128))
        found = reference.score_stack(stack)
        assert found.score < 1
        assert found.patch_scores[0] > 1
        assert 0 < found.share_outside < 0.1

    def test_where_a_mosaic_has_no_field_is_left_out(self, reference: Reference):
        stack = stack_of(specks(23, size=700))
        stack[:, :400] = 0
        found = reference.score_stack(stack)
        assert found.score < 1
        assert np.isnan(found.patch_scores).any()
        assert reference.score_stack(np.zeros((300, 300, 3), np.float32)).score > 1

    def test_a_small_image_is_judged_with_less_certainty(self, reference: Reference):
        assert reference.score_stack(stack_of(specks(24))[:48, :60]).score < 1

    def test_the_nearest_of_several_sets_counts(self):
        sets = {
            "specks": [stack_of(specks(seed)) for seed in range(2)],
            "blots": [stack_of(-specks(seed, radius=6.0)) for seed in range(2)],
        }
        both = fit_reference(sets, {})
        specked, blotted = (stack_of(p) for p in (specks(40), -specks(40, radius=6.0)))
        assert both.score_stack(specked).nearest == "specks"
        assert both.score_stack(blotted).nearest == "blots"
        assert max(both.score_stack(s).score for s in (specked, blotted)) < 1.2
        assert both.score_stack(stack_of(noise(2))).score > 1.3

    def test_equal_images_and_seeds_give_equal_references(self):
        stacks = {"a": [stack_of(specks(1, size=200))]}
        first, again = (fit_reference(stacks, stacks, seed=3).to_json() for _ in range(2))
        assert first == again
        assert fit_reference(stacks, stacks, seed=4).to_json() != first

    def test_a_set_of_two_kinds_has_two_looks(self):
        kinds = [stack_of(specks(1)), stack_of(-specks(2, radius=7.0))]
        both = fit_reference(
            {"mixed": kinds}, {"mixed": [stack_of(specks(3)), stack_of(-specks(4, radius=7.0))]}
        )
        assert len(both.looks) >= 2
        assert both.score_stack(stack_of(specks(5))).score < 1


class TestCard:
    def test_a_reference_survives_the_card_and_is_small(self, reference: Reference):
        text = json.dumps(reference.to_json())
        assert len(text) < 5000 * len(reference.looks)
        back = Reference.from_json(json.loads(text))
        assert back is not None
        stack = stack_of(specks(50))
        assert back.score_stack(stack) == reference.score_stack(stack)

    def test_a_model_keeps_it_and_is_the_same_model(self, informed: Model, tiny_models_once: TinyModels):
        assert reference_of(Card.from_folder(informed.folder)) is not None
        assert reference_of(tiny_models_once.three.card) is None
        assert informed.hash == tiny_models_once.three.hash

    def test_one_of_another_version_is_passed_over(self, informed: Model):
        other = {**informed.card.out_of_distribution, "method": "something newer"}
        assert reference_of(dataclasses.replace(informed.card, out_of_distribution=other)) is None

    @pytest.mark.parametrize("damage", ["sets", "mean", "of_images", "limit"])
    def test_a_damaged_one_is_refused_and_names_the_model(self, informed: Model, damage: str):
        section = json.loads(json.dumps(informed.card.out_of_distribution))
        if damage == "sets":
            section["sets"] = []
        elif damage == "limit":
            section["sets"][0]["image_limit"] = 0
        elif damage == "mean":
            section["sets"][0]["mean"] = "AAAA"
        else:
            section["sets"][0]["of_images"]["sd"] = "not base64!"
        with pytest.raises(LinceiError, match="damaged") as error:
            reference_of(dataclasses.replace(informed.card, out_of_distribution=section))
        assert "informed" in str(error.value)


class Counted(LazyArray):
    """A huge image made where it is read; notes how many pixels were asked for."""

    def __init__(self, tile: NDArray[np.uint16], side: int, times: int = 1) -> None:
        super().__init__((times, 1, tile.shape[0], side, side), np.uint16)
        self.tile, self.pixels, self.seen = tile, 0, set()

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        rows, columns = (mirrored(np.arange(part.start, part.stop), self.tile.shape[1]) for part in box[3:])
        result = self.tile[box[2]][:, rows[:, None], columns][None, None]
        result = result.repeat(box[0].stop - box[0].start, axis=0)
        self.pixels += result.size
        self.seen.update(range(box[0].start, box[0].stop))
        return result


class TestImage:
    def test_a_lazy_image_scores_as_one_in_memory(self, reference: Reference):
        image = field(specks(60, planes=5))
        found = score_image(reference, image, standard_scaling(image), plane_weights(5, 3))
        assert found == reference.score_stack(seen(image, 3))

    def test_of_a_huge_one_little_is_read(self, reference: Reference):
        tile = gray(0.1 * specks(61, size=512, planes=13))
        array = Counted(tile.read()[0, 0], 20_000)
        found = score_image(reference, Image(array), standard_scaling(tile), plane_weights(13, 3))
        assert found.score < 1
        assert array.pixels <= 25 * 3 * PATCH_PX**2

    def test_all_times_of_a_movie_count(self, reference: Reference):
        array = Counted(gray(specks(62)).read()[0, 0], 600, times=10)
        score_image(reference, Image(array), standard_scaling(gray(specks(62))), plane_weights(3, 3))
        assert array.seen == set(range(10))


class TestLabeling:
    def test_a_familiar_image_is_labeled_without_a_word_and_the_score_is_kept(self, informed: Model):
        with warnings.catch_warnings():
            warnings.simplefilter("error", LinceiWarning)
            result = label(field(specks(70)), informed)["mean"]
        assert result.provenance is not None
        noted = result.provenance["models"][0]["out_of_distribution"]
        assert noted["score"] < 1
        assert noted["share_of_patches_outside"] < 0.2
        assert noted["nearest_training_set"] == "specks"
        json.dumps(noted)

    def test_an_unfamiliar_image_is_labeled_with_one_sentence_of_warning(self, informed: Model):
        image = field(-specks(71), name="field_7")
        with pytest.warns(LinceiWarning, match="field_7: this image does not look like what") as heard:
            result = label(image, informed)["mean"]
        assert len(heard) == 1
        assert "'informed'" in str(heard[0].message)
        assert result.provenance is not None
        score = result.provenance["models"][0]["out_of_distribution"]["score"]
        assert score > 1
        assert f"score {score:.1f}" in str(heard[0].message)

    def test_an_empty_field_is_called_empty(self, informed: Model):
        with pytest.warns(LinceiWarning, match="nothing in it but noise"):
            label(field(noise(72), name="empty"), informed)

    def test_tiles_do_not_matter(self, informed: Model):
        image = field(specks(73))
        first, second = (
            label(image, informed, tile_px=tile)["mean"].provenance["models"] for tile in (64, 1024)
        )
        assert first == second

    def test_the_image_is_judged_at_the_models_pixel_size(
        self, informed: Model, tmp_path: Path, reference: Reference
    ):
        scaled = variant(
            informed, tmp_path / "scaled", pixel_size_um=0.5, out_of_distribution=reference.to_json()
        )
        pixels = ndimage.zoom(specks(74, size=300), (1, 2, 2), order=1, mode="nearest")
        right = label(field(pixels, pixel_size_um=0.25), scaled)["mean"].provenance["models"][0]
        with pytest.warns(LinceiWarning, match="does not look like"):
            wrong = label(field(pixels, pixel_size_um=0.5), scaled)["mean"].provenance["models"][0]
        assert right["out_of_distribution"]["score"] < 1 < wrong["out_of_distribution"]["score"]

    def test_a_model_without_it_labels_as_before(self, tiny: TinyModels):
        result = label(gray(noise(75, size=80)), tiny.three)["mean"]
        assert result.provenance is not None
        assert result.provenance["models"][0]["out_of_distribution"] is None


def test_no_sentence_for_an_image_within_the_limit(reference: Reference):
    assert in_words(reference.score_stack(stack_of(specks(80))), "a", "b") == ""


def real(folder: Path, pattern: str, planes: int, every: int = 1) -> list[Array]:
    """Return real images as a network of so many planes sees them; color ones as gray."""
    stacks = []
    for group in find_inputs([str(folder / pattern)])[::every]:
        image = group.open()
        if image.rgb:
            pixels = image.read()[0, :, 0].mean(axis=0)
            image = Image.from_array(pixels.astype(np.float32), axes="YX")
        stacks.append(seen(image, planes))
    return stacks


def changed(stacks: list[Array], change: Any) -> list[Array]:
    """Change images, and scale them anew as labeling would."""
    pixels = [np.moveaxis(change(stack), -1, 0).astype(np.float32) for stack in stacks]
    return [seen(Image.from_array(p, axes="ZYX"), p.shape[0]) for p in pixels]


def halved(stack: Array) -> Array:
    height, width, planes = stack.shape[0] // 2, stack.shape[1] // 2, stack.shape[2]
    return stack[: 2 * height, : 2 * width].reshape(height, 2, width, 2, planes).mean((1, 3))


def blurred(sigma: float) -> Any:
    return lambda stack: ndimage.gaussian_filter(stack, (sigma, sigma, 0))


@pytest.fixture(scope="module")
def known(real_data: Path) -> dict[str, Reference]:
    """What two models see of their training images: a field of neurons, and two strains of bacteria."""
    neurons = real(real_data, "isl_motor_neurons/phase_z{z}.tif", 13)[0]
    bacteria = real(real_data, "ecoli_phase_yfp/O3_R124_phase_pos_*.tif", 1, 2)
    bacteria += real(real_data, "ecoli_phase_yfp/O3_delta_phase_pos_*.tif", 1, 2)
    return {
        "neurons": fit_reference({"neurons": [neurons[:512]]}, {"neurons": [neurons[648:738]]}),
        "bacteria": fit_reference({"bacteria": bacteria[::2]}, {"bacteria": bacteria[1::2]}),
    }


@pytest.mark.parametrize("model", ["neurons", "bacteria"])
def test_real_images_of_the_kind_are_told_from_others(real_data: Path, known: Any, model: str):
    """Prints the table of scores that docs/trust.md shows (with pytest -s)."""
    planes = {"neurons": 13, "bacteria": 1}[model]
    field = real(real_data, "isl_motor_neurons/phase_z{z}.tif", planes)
    strain = real(real_data, "ecoli_phase_yfp/O3_R22_phase_pos_*.tif", planes, 7)
    random = np.random.default_rng(0)
    electrons = random.poisson(8000, (planes, 400, 400)).astype(float)
    strip = field[0][874:]
    fewer = Image.from_array(np.moveaxis(strip[:, :, ::3], -1, 0), axes="ZYX")
    own = {
        "neurons": {"a held-out strip": [strip], "the same, 5 of 13 planes": [seen(fewer, planes)]},
        "bacteria": {"a held-out strain": strain},
    }[model]
    mine = field if model == "neurons" else strain
    others = {
        "phase contrast of other cells": strain if model == "neurons" else field,
        "bright field": real(real_data, "jurkat_flow_cytometry/S_phase_Ch3_*.tif", planes),
        "fluorescent nuclei": real(real_data, "bbbc039_nuclei/*.tif", planes, 40),
        "fluorescent beads": real(real_data, "beads_zstack/E07_s1_w1_step05_*.tif", planes),
        "H&E in gray": real(real_data, "he_lymph_node_10x/images/*.png", planes, 10),
        "defocused": changed(mine, blurred(4)),
        "at half the magnification": changed(mine, halved),
        "camera noise": changed([np.moveaxis(electrons, 0, -1)], np.asarray),
        "camera noise, light uneven": changed(
            [np.moveaxis(electrons + np.linspace(0, 1500, 400), 0, -1)], np.asarray
        ),
    }
    for name, stacks in {**own, **others}.items():
        found = [known[model].score_stack(stack) for stack in stacks]
        scores = [one.score for one in found]
        share = max(one.share_outside for one in found)
        print(f"{model:9s} {name:32s} {min(scores):5.2f} to {max(scores):5.2f}  {100 * share:3.0f} % outside")
        if name in own:
            assert max(scores) < 1, name
        else:
            assert min(scores) > 1, name
        assert all(one.empty == name.startswith("camera noise") for one in found), name
