"""Outlining still images: in place at any scale, whatever the tiles, without looking at glass."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sections import DISKS, GLASS, SIZE, section
from numpy.typing import NDArray
from tiny_tumor_models import CELL_PX, STRIDE, field_with_disks, write_all_kinds, write_tiny_model

import arm_overlay
from arm_overlay.outline import cells_in, scaled
from arm_overlay.tissue import Tissue, find_tissue
from arm_overlay.tumor_image import TumorOutline, tumor
from arm_overlay.tumor_model import CLASS_PROBABILITIES, NUMBER, POINTS, PROBABILITY_MAP
from lincei.engine import Engine
from lincei.errors import CancelledError, LinceiError, LinceiWarning, UsageError
from lincei.image import Image, open_image
from lincei.model import Card, Model, Tensor, write_model
from lincei.progress import Progress


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return write_all_kinds(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def model(models: dict[str, Model]) -> Model:
    return models[PROBABILITY_MAP]


def enlarged(image: Image, times: int) -> NDArray[Any]:
    pixels: NDArray[Any] = image.read().repeat(times, axis=3).repeat(times, axis=4)
    return pixels


def assert_disks(outline: TumorOutline, disks: tuple[tuple[float, float, float], ...] = DISKS) -> None:
    """Check that the regions are these disks, the largest first, to an eighth of a cell or 3 %."""
    assert len(outline.regions) == len(disks)
    for region, (x, y, radius) in zip(outline.regions, disks, strict=True):
        tolerance = max(CELL_PX / 4, 0.03 * radius)
        np.testing.assert_allclose(region.exterior.min(axis=0), (x - radius, y - radius), atol=tolerance)
        np.testing.assert_allclose(region.exterior.max(axis=0), (x + radius, y + radius), atol=tolerance)
        assert region.area_px == pytest.approx(math.pi * radius**2, rel=0.07)
        assert region.diameter_px == pytest.approx(2 * radius, rel=0.05)
        assert region.score > 0.9


def assert_same_regions(found: TumorOutline, expected: TumorOutline) -> None:
    assert len(found.regions) == len(expected.regions) > 0
    for one, other in zip(found.regions, expected.regions, strict=True):
        np.testing.assert_array_equal(one.exterior, other.exterior)
        assert (one.area_px, one.score, len(one.holes)) == (other.area_px, other.score, len(other.holes))


def test_disks_are_outlined_where_they_are(model: Model) -> None:
    outline = tumor(section(), model)
    assert_disks(outline)
    assert outline.largest_diameter_um == pytest.approx(240, rel=0.03)
    assert outline.size_px == (900, 700)
    assert (outline.kind, outline.model, outline.scale_assumed) == (PROBABILITY_MAP, model.name, False)
    assert outline.warnings == ()


def test_probability_is_as_large_as_the_image_and_high_in_the_disks(model: Model) -> None:
    probability = tumor(section(), model).probability
    assert probability is not None
    assert probability.shape == (1, 1, 1, *SIZE)
    assert probability.dtype == np.float32
    assert probability.pixel_size_um == 1.0
    values = probability.read()[0, 0, 0]
    assert 0 <= values.min() <= values.max() <= 1
    assert values[300, 300] > 0.9 > 0.1 > values[100, 700]


@pytest.mark.parametrize("times", [2, 4])
def test_finer_images_are_outlined_at_their_own_pixels(model: Model, times: int) -> None:
    coarse = section()
    fine = coarse.with_(data=enlarged(coarse, times), pixel_size_um=1 / times)
    outline, expected = tumor(fine, model), tumor(coarse, model)
    assert outline.probability is not None
    assert outline.probability.shape[3:] == (SIZE[0] * times, SIZE[1] * times)
    for region, other in zip(outline.regions, expected.regions, strict=True):
        np.testing.assert_allclose(
            region.exterior.mean(axis=0), scaled(other, times).exterior.mean(axis=0), atol=times
        )
        assert region.area_px == pytest.approx(other.area_px * times**2, rel=0.03)
    assert outline.largest_diameter_um == pytest.approx(expected.largest_diameter_um, rel=0.02)


def test_coarser_images_are_enlarged_with_a_warning_where_they_are_too_coarse(model: Model) -> None:
    disks = ((150.0, 150.0, 60.0), (350.0, 250.0, 30.0))
    outline = tumor(section((350, 450), disks, pixel_size_um=2.0), model)
    assert_disks(outline, disks)
    assert not outline.warnings
    with pytest.warns(LinceiWarning, match="pixels of 4 um show less than the model needs"):
        outline = tumor(section((350, 450), disks, pixel_size_um=4.0), model)
    assert_disks(outline, disks)


def test_images_that_would_be_enlarged_out_of_all_measure_are_refused(model: Model) -> None:
    with pytest.raises(LinceiError, match=r"500 um are too coarse .*--pixel-size-um .* up to 4 um"):
        tumor(section((300, 400)), model, pixel_size_um=500)


def test_coarse_images_are_looked_at_as_at_the_objective_of_their_scale(tmp_path: Path) -> None:
    table = {
        "4x": {"network": "", "pixel_size_um": 2.0, "threshold": 0.8},
        "10x": {"network": "", "pixel_size_um": 1.0, "threshold": 0.6},
    }
    model = write_tiny_model(tmp_path / "by-objective", threshold=0.55, objectives=table)
    thresholds = {
        size: tumor(section(pixel_size_um=size), model).threshold for size in (0.5, 1.0, 1.2, 1.7, 2.5)
    }
    assert thresholds == {0.5: 0.55, 1.0: 0.55, 1.2: 0.55, 1.7: 0.8, 2.5: 0.8}
    assert tumor(section(pixel_size_um=2.5), model, threshold=0.3).threshold == 0.3


def test_a_pixel_size_that_the_user_states_goes_before_the_image_s(model: Model) -> None:
    outline = tumor(section(pixel_size_um=0.3), model, pixel_size_um=1.0)
    assert_disks(outline)
    assert outline.pixel_size_um == 1.0


def test_without_a_pixel_size_it_goes_on_unscaled_and_says_so(model: Model) -> None:
    with pytest.warns(LinceiWarning, match="pixel size is not known") as caught:
        outline = tumor(section(pixel_size_um=None), model)
    assert len(caught) == 1
    assert_disks(outline)
    assert outline.scale_assumed
    assert outline.largest_diameter_um is None
    assert outline.warnings == (str(caught[0].message),)
    assert outline.probability is not None
    assert outline.probability.pixel_size_um is None


def test_sixteen_bits_give_what_eight_give(model: Model) -> None:
    eight = section()
    sixteen = eight.with_(data=eight.read().astype(np.uint16) * 257)
    assert_same_regions(tumor(sixteen, model), tumor(eight, model))


def test_channels_called_red_green_and_blue_are_colors(model: Model) -> None:
    image = section()
    named = image.with_(rgb=False, channel_names=("Red", "Green", "Blue"))
    assert_same_regions(tumor(named, model), tumor(image, model))


def write_blurring_model(folder: Path) -> Model:
    """Write a model whose cells also depend on their neighbors, up to 3 cells away."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    first = np.zeros((1, 3, CELL_PX, CELL_PX), np.float32)
    first[:, 1] = -0.1 / CELL_PX**2
    random = np.random.default_rng(5)
    second = random.uniform(0, 1, (1, 1, 7, 7)).astype(np.float32)
    constants = {"first": first, "bias": np.array([12.8], np.float32), "second": second / second.sum()}
    nodes = [
        helper.make_node("Conv", ["field", "first", "bias"], ["cells"], strides=[CELL_PX, CELL_PX]),
        helper.make_node("Conv", ["cells", "second"], ["logits"], pads=[3, 3, 3, 3]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
    ]
    ends = [
        helper.make_tensor_value_info("field", TensorProto.FLOAT, ["n", 3, "y", "x"]),
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1, "rows", "columns"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "blurring", [ends[0]], [ends[1]], stored)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(network)
    tensors = [
        Tensor("field", ("red", "green", "blue")),
        Tensor("probability", ("probability",), downsampling=CELL_PX),
    ]
    card = Card(
        name=folder.name,
        task="tumor",
        description="Takes dark surroundings for tumor; for tests.",
        modality="H&E",
        input=tensors[0],
        outputs=(tensors[1],),
        total_stride=STRIDE,
        halo_px=24,  # no multiple of the stride: what is read is
        pixel_size_um=1.0,
        settings={"output_kind": PROBABILITY_MAP, "threshold": 0.5},
    )
    field = field_with_disks(4 * STRIDE, 4 * STRIDE)
    from onnx.reference import ReferenceEvaluator

    (expected,) = ReferenceEvaluator(network).run(None, {"field": field})
    return write_model(
        folder,
        card,
        onnx=network.SerializeToString(),
        test_input=field,
        test_outputs={"probability": expected.astype(np.float32)},
    )


@pytest.mark.parametrize("tile_px", [64, 256])
@pytest.mark.parametrize("pixel_size_um", [1.0, 0.6])
def test_tiles_give_what_the_whole_image_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile_px: int, pixel_size_um: float
) -> None:
    blurring = write_blurring_model(tmp_path / "blurring")
    image = section((413, 597), ((200, 200, 90), (420, 300, 50)), pixel_size_um=pixel_size_um)
    whole = tumor(image, blurring)
    monkeypatch.setattr("arm_overlay.tumor_image._TILE_PX", tile_px)
    in_tiles = tumor(image, blurring)
    assert whole.probability is not None
    assert in_tiles.probability is not None
    np.testing.assert_allclose(in_tiles.probability.read(), whole.probability.read(), atol=2e-6)
    assert len(in_tiles.regions) == len(whole.regions) == 2


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that engines were run with."""
    shapes: list[tuple[int, ...]] = []
    run = Engine.run

    def counted(self: Engine, stack: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        shapes.append(np.shape(stack))
        return run(self, stack)

    monkeypatch.setattr(Engine, "run", counted)
    return shapes


def tissue_everywhere(*arguments: Any, **options: Any) -> Tissue:
    """Stand in for `find_tissue`, with glass taken for tissue."""
    found = find_tissue(*arguments, **options)
    return dataclasses.replace(found, cells=np.ones_like(found.cells))


def test_glass_is_not_looked_at_and_no_outline_changes_by_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, runs: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr("arm_overlay.tumor_image._TILE_PX", 128)
    # Tumor right up to the glass: the worst case.
    image = section(around=4)
    sparing = tumor(image, model)
    spared = len(runs)
    monkeypatch.setattr("arm_overlay.tumor_image.find_tissue", tissue_everywhere)
    complete = tumor(image, model)
    assert len(runs) - spared == 6 * 8
    assert spared < 30
    assert_disks(sparing)
    assert_same_regions(sparing, complete)
    assert sparing.probability is not None
    assert sparing.probability.read()[0, 0, 0, 600:, :200].max() == 0


def test_field_score_is_high_where_some_of_the_tissue_is_tumor(model: Model) -> None:
    assert (tumor(section(), model).field_score or 0) > 0.95
    # Less than a share of all that is seen, but not of the tissue.
    assert (tumor(section(disks=((200, 200, 60),), around=40), model).field_score or 0) > 0.95
    assert (tumor(section(disks=((200, 200, 4),)), model).field_score or 1) < 0.1


def test_percent_is_of_the_tissue(model: Model) -> None:
    everywhere, islands = tumor(section(), model), tumor(section(around=40), model)
    disks = sum(math.pi * radius**2 for *_, radius in DISKS)
    islands_px = sum(math.pi * (radius + 40) ** 2 for *_, radius in DISKS)
    assert everywhere.percent == pytest.approx(100 * disks / (SIZE[0] * SIZE[1]), rel=0.03)
    assert islands.percent == pytest.approx(100 * disks / islands_px, rel=0.04)


@pytest.mark.parametrize(
    ("color", "said"),
    [
        ((255, 255, 255), "of one color everywhere"),
        ((0, 0, 0), "of one color everywhere"),
        ((180, 90, 150), "of one color everywhere"),
        (None, "no stained tissue"),
    ],
)
def test_where_there_is_no_tissue_nothing_is_outlined_and_it_is_said(
    model: Model, runs: list[tuple[int, ...]], color: tuple[int, int, int] | None, said: str
) -> None:
    colors = np.random.default_rng(0).normal(GLASS, 3, (*SIZE, 3)).clip(0, 255).astype(np.uint8)
    if color is not None:
        colors[:] = color
    with pytest.warns(LinceiWarning, match=said):
        outline = tumor(Image.from_array(colors, "YXS", pixel_size_um=1.0), model)
    assert (outline.regions, outline.percent, outline.field_score) == ((), None, None)
    assert outline.probability is not None
    assert outline.probability.read().max() == 0
    assert not runs


def test_tinted_glass_is_warned_of_and_is_no_tissue(model: Model) -> None:
    colors = np.random.default_rng(0).normal(GLASS, 3, (*SIZE, 3)).clip(0, 255)
    colors[200:400, 200:400] = section().read()[0, :, 0, 200:400, 200:400].transpose(1, 2, 0)
    balanced = tumor(Image.from_array(colors.astype(np.uint8), "YXS", pixel_size_um=1.0), model)
    tinted = Image.from_array((colors * (1.0, 0.95, 0.85)).astype(np.uint8), "YXS", pixel_size_um=1.0)
    with pytest.warns(LinceiWarning, match="its glass is not white but tinted"):
        outline = tumor(tinted, model)
    assert balanced.percent is not None
    assert outline.percent == pytest.approx(balanced.percent, abs=3)


def test_an_underexposed_image_is_warned_of(model: Model) -> None:
    dark = section().with_(data=section().read().astype(np.uint16) * 16)
    with pytest.warns(LinceiWarning, match="it is dark .* Check exposure and bit depth"):
        tumor(dark, model)


def pyramid(image: Image, times: tuple[int, ...]) -> Image:
    """Return an image whose finest level must not be read, with coarser levels of the given factors."""

    class Unread:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("the finest level was read")

    pixels = image.read()
    levels = []
    for factor in times:
        height, width = image.shape[3] // factor, image.shape[4] // factor
        parts = pixels[..., : height * factor, : width * factor]
        means = parts.reshape(1, 3, 1, height, factor, width, factor).mean(axis=(4, 6))
        levels.append(image.with_(data=means.astype(np.uint8)))
    return image.with_(data=Unread(), levels=tuple(levels))


def test_of_a_pyramid_the_level_at_the_model_s_scale_is_read(model: Model) -> None:
    coarse = section()
    fine = coarse.with_(data=enlarged(coarse, 4), pixel_size_um=0.25)
    outline = tumor(pyramid(fine, (2, 4, 16)), model)
    assert_disks(outline, tuple((4 * x + 1.5, 4 * y + 1.5, 4 * radius) for x, y, radius in DISKS))
    assert outline.size_px == (3600, 2800)
    assert outline.probability is not None
    assert outline.probability.shape[3:] == (2800, 3600)


def test_probability_of_a_very_large_image_is_at_the_model_s_scale(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arm_overlay.tumor_image.FULL_SIZE_UP_TO_PX", 3000)
    coarse = section()
    fine = coarse.with_(data=enlarged(coarse, 4), pixel_size_um=0.25)
    outline = tumor(pyramid(fine, (2, 4, 16)), model)
    assert outline.probability is not None
    assert outline.probability.shape[3:] == SIZE
    assert outline.probability.pixel_size_um == 1.0
    assert outline.probability.read()[0, 0, 0, 300, 300] > 0.9
    # Outlines stay in pixels of the image itself.
    assert outline.regions[0].diameter_px == pytest.approx(4 * 240, rel=0.03)


def test_points_are_found_where_they_are(models: dict[str, Model]) -> None:
    disks = ((300.0, 300.0, 8.0), (700.0, 500.0, 8.0), (120.0, 640.0, 8.0))
    outline = tumor(section(disks=disks), models[POINTS])
    assert outline.points is not None
    distances = np.hypot(*(outline.points[:, None] - np.array([d[:2] for d in disks])).T)
    assert outline.points.shape == (3, 2)
    assert (distances.min(axis=0) < CELL_PX).all()
    assert outline.texts == ("3 x nucleus",)
    assert outline.regions == ()
    assert outline.percent is None


def test_a_model_of_classes_answers_for_the_field(models: dict[str, Model]) -> None:
    outline = tumor(section(pixel_size_um=0.5), models[CLASS_PROBABILITIES])
    assert set(outline.classes) == {"benign", "tumor"}
    assert sum(outline.classes.values()) == pytest.approx(1)
    share = sum(math.pi * radius**2 for *_, radius in DISKS) / (SIZE[0] * SIZE[1])
    assert outline.classes["tumor"] == pytest.approx(share, abs=0.01)
    assert outline.texts == ("benign: 91 %", "tumor: 9 %")
    assert outline.probability is None


def test_a_model_of_a_number_answers_for_the_field(models: dict[str, Model]) -> None:
    outline = tumor(section(), models[NUMBER])
    assert outline.number == pytest.approx(8.7, abs=0.5)
    assert outline.texts == (f"dark area: {outline.number:.3g} %",)
    assert outline.probability is None


@pytest.mark.parametrize("kind", [CLASS_PROBABILITIES, NUMBER])
def test_a_model_of_fields_refuses_what_is_larger_than_a_field(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("arm_overlay.tumor_image._LARGEST_FIELD_PX", 800)
    with pytest.raises(LinceiError, match="900 x 700 pixels at the model's scale") as raised:
        tumor(section(), models[kind])
    assert "probability map" in raised.value.what_to_do


GRAY = np.zeros((40, 50), np.uint8)
COLOR = np.zeros((40, 50, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (lambda: GRAY, "an array, not an image"),
        (lambda: "a.tif", "'a.tif', not an image"),
        (lambda: Image.from_array(GRAY), "it is gray"),
        (lambda: Image.from_array(np.zeros((4, 40, 50), np.uint8), "CYX"), "its 4 channels are not red"),
        (lambda: Image.from_array(np.zeros((3, 40, 50), np.uint8), "CYX"), "its 3 channels are not red"),
        (lambda: Image.from_array(COLOR, "YXS", modality="fluorescence"), "it is a fluorescence image"),
        (lambda: Image.from_array(COLOR, "YXS", modality="phase contrast"), "it is a phase contrast image"),
        (lambda: Image.from_array(COLOR[None].repeat(5, 0), "ZYXS"), "it has 5 z planes"),
        (lambda: Image.from_array(COLOR[None].repeat(2, 0), "TYXS"), "it has 2 time points"),
        (lambda: Image.from_array(COLOR.astype(np.float32), "YXS"), "nothing says which of them is white"),
        (lambda: Image.from_array(COLOR[:9, :20], "YXS", pixel_size_um=1.0), "20 x 9 pixels at the model's"),
        (lambda: Image.from_array(COLOR, "YXS", pixel_size_um=0.1), "5 x 4 pixels at the model's scale"),
    ],
)
def test_what_is_no_color_image_of_a_section_is_refused_in_a_sentence(
    model: Model, image: Callable[[], Any], said: str
) -> None:
    with pytest.raises(LinceiError, match=said) as raised:
        tumor(image(), model)
    assert raised.value.what_to_do


def test_fractions_with_a_stated_white_are_colors(model: Model) -> None:
    image = section()
    fractions = image.with_(data=image.read() / np.float32(255), intensity_range=(0.0, 1.0))
    assert_disks(tumor(fractions, model))


def test_a_threshold_of_one_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="--threshold is 1"):
        tumor(section(), model, threshold=1.0)
    # Before a batch begins, not once for each of its inputs.
    with pytest.raises(UsageError, match="--threshold is 1"):
        arm_overlay.TumorOptions(threshold=1.0)


def test_options_and_keywords_reach_it(model: Model) -> None:
    assert_disks(tumor(section(), model, smallest_um=150.0), DISKS[:1])
    assert_disks(tumor(section(), options=arm_overlay.TumorOptions(model=str(model.folder))))


def test_progress_is_told_and_it_stops_when_asked(model: Model) -> None:
    heard: list[Progress] = []
    tumor(section(), model, progress=heard.append)
    assert [update.stage for update in heard][-1] == "outlining"
    assert heard[-1].done == heard[-1].total
    with pytest.raises(CancelledError):
        tumor(section(), model, cancelled=lambda: True)


def test_provenance_says_how_it_was_made(model: Model) -> None:
    outline = tumor(section(source="slide.svs"), model, threshold=0.7)
    told = json.loads(json.dumps(dict(outline.provenance)))
    assert told["model"]["name"] == model.name
    assert told["parameters"]["threshold"] == 0.7
    assert told["source"] == "slide.svs"
    assert told["scale_assumed"] is False
    assert "Research use only" in told["note"]
    assert outline.probability is not None
    assert outline.probability.provenance == outline.provenance


def test_the_overlay_is_what_is_drawn_over_the_image(model: Model) -> None:
    outline = tumor(section(), model)
    overlay = outline.overlay()
    assert overlay.frame_size_px == (900, 700)
    assert overlay.regions == outline.regions


def test_no_warning_goes_unsaid_or_is_said_twice(model: Model) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outline = tumor(section(pixel_size_um=None), model)
    assert [str(one.message) for one in caught] == list(outline.warnings)


class TestShippedModel:
    """On real sections, with the model that comes with lincei."""

    @staticmethod
    def fields(real_data: Path) -> list[tuple[Image, NDArray[np.bool_]]]:
        """Return a few sections and where they are tumor."""
        names = ("1009009_r27c5", "1009009_r28c12", "1009009_r31c1")
        folder = real_data / "he_oral_20x"
        fields = []
        for name in names:
            (mask,) = (folder / "masks").glob(f"{name}.*")
            image = open_image(folder / "images" / f"{name}.png", pixel_size_um=0.5)
            fields.append((image, open_image(mask).read()[0, 0, 0] > 127))
        return fields

    def test_tumor_of_real_sections_is_outlined(self, real_data: Path) -> None:
        both = either = 0
        for image, truth in self.fields(real_data):
            found = cells_in(tumor(image).regions, truth.shape, 1)
            both += int((found & truth).sum())
            either += int(found.sum() + truth.sum())
        # Dice; the card says how good it is on sections that the model was not trained on.
        assert 2 * both / either > 0.75

    def test_tiles_and_glass_left_out_change_no_outline(
        self, real_data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = self.fields(real_data)[1][0]  # a quarter of it is glass
        whole = tumor(image)
        monkeypatch.setattr("arm_overlay.tumor_image._TILE_PX", 64)
        in_tiles = tumor(image)
        monkeypatch.setattr("arm_overlay.tumor_image.find_tissue", tissue_everywhere)
        with_glass = tumor(image)
        assert len(in_tiles.regions) == len(with_glass.regions) == len(whole.regions) > 0
        for regions in zip(whole.regions, in_tiles.regions, with_glass.regions, strict=True):
            for other in regions[1:]:
                np.testing.assert_allclose(other.exterior, regions[0].exterior, atol=0.1)


def test_the_function_is_not_hidden_by_a_module():
    import arm_overlay
    import arm_overlay.tumor_files

    assert arm_overlay.tumor is tumor
    assert callable(arm_overlay.train)
