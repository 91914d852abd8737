"""Every set of the real data opens as it should. The tests only read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lincei.image import Image, open_image, open_stack
from lincei.pattern import InputGroup, find_inputs, pair, refuse_equal_stems


def images_of(groups: list[InputGroup]) -> list[Image]:
    return [group.open() for group in groups]


def test_motor_neurons_are_one_stack_of_thirteen_planes_in_order(real_data: Path) -> None:
    folder = real_data / "isl_motor_neurons"
    (group,) = find_inputs([str(folder / "phase_z{z}.tif")])
    image = group.open(modality="phase contrast")
    assert group.stem == "phase"
    assert image.name == "phase"
    assert image.shape == (1, 1, 13, 1024, 704)
    assert image.dtype == np.uint16
    assert not image.rgb
    assert image.pixel_size_um is None
    assert image.modality == "phase contrast"
    for z in (0, 2, 10, 12):
        plane = open_image(folder / f"phase_z{z:02}.tif").read()
        np.testing.assert_array_equal(image.read({"Z": slice(z, z + 1)}), plane)


def test_motor_neuron_labels_pair_with_the_one_stack(real_data: Path) -> None:
    folder = real_data / "isl_motor_neurons"
    inputs = find_inputs([str(folder / "phase_z{z}.tif")])
    names = ("DAPI", "MAP2", "NFH")
    labels = {name: find_inputs([str(folder / f"{name.lower()}_confocal_maxproj.tif")]) for name in names}
    pairing = pair(inputs, labels)
    assert pairing.unpaired == ()
    assert len(pairing.pairs) == 1
    for label in pairing.pairs[0].labels.values():
        image = label.open()
        assert image.shape == (1, 1, 1, 1024, 704)
        assert image.dtype == np.uint16


def test_ecoli_phase_pairs_with_yfp_of_the_same_strain_and_position(real_data: Path) -> None:
    folder = real_data / "ecoli_phase_yfp"
    inputs = find_inputs([str(folder / "O3_{name}_phase_pos_{field}.tif")])
    labels = {"YFP": find_inputs([str(folder / "O3_{name}_yfp_pos_{field}.tif")])}
    pairing = pair(inputs, labels)
    assert len(pairing.pairs) == 63
    assert pairing.unpaired == ()
    for one in pairing.pairs:
        assert one.input.paths[0].name.replace("_phase_", "_yfp_") == one.labels["YFP"].paths[0].name
    assert {one.input.captures["name"] for one in pairing.pairs} == {"delta", "R22", "R124"}
    refuse_equal_stems(inputs)
    image = pairing.pairs[0].input.open(pixel_size_um=0.160)
    assert image.shape == (1, 1, 1, 512, 512)
    assert image.dtype == np.uint16
    assert image.pixel_size_um == 0.160


def test_jurkat_bright_field_pairs_with_dna_by_stars(real_data: Path) -> None:
    folder = real_data / "jurkat_flow_cytometry"
    inputs = find_inputs([str(folder / "*_Ch3_*.tif")])
    labels = {"DNA": find_inputs([str(folder / "*_Ch4_*.tif")])}
    pairing = pair(inputs, labels)
    assert len(pairing.pairs) == 7
    assert pairing.unpaired == ()
    for image in images_of(inputs):
        assert image.shape == (1, 1, 1, 1200, 1200)
        assert image.dtype == np.uint16


def test_jurkat_channels_join_into_images_of_two_channels(real_data: Path) -> None:
    groups = find_inputs([str(real_data / "jurkat_flow_cytometry" / "*_Ch{c}_CP????.tif")])
    assert [group.stem for group in groups][:2] == ["Anaphase_CP", "G1_CP"]
    image = groups[0].open()
    assert image.shape == (1, 2, 1, 1200, 1200)
    bright_field = open_image(real_data / "jurkat_flow_cytometry" / "Anaphase_Ch3_CP0001.tif").read()
    np.testing.assert_array_equal(image.read({"C": slice(0, 1)}), bright_field)


def test_bbbc039_is_a_batch_of_109_fields(real_data: Path) -> None:
    groups = find_inputs([str(real_data / "bbbc039_nuclei")])
    assert len(groups) == 109
    refuse_equal_stems(groups)
    for image in images_of(groups):
        assert image.shape == (1, 1, 1, 520, 696)
        assert image.dtype == np.uint16


def test_bbbc006_is_a_batch_of_sharp_and_defocused_fields(real_data: Path) -> None:
    groups = find_inputs([str(real_data / "bbbc006_focus" / "{name}_{well}_s?.tif")])
    kinds = [group.captures["name"] for group in groups]
    assert (kinds.count("sharp"), kinds.count("defocused")) == (3, 8)
    for image in images_of(groups):
        assert image.shape == (1, 1, 1, 520, 696)
        assert image.dtype == np.uint16


@pytest.mark.parametrize(
    "name", ["{well}_s{field}_w1_step{z}_Z*um.tif", "{well}_s{field}_w1_step??_Z{z}um.tif"]
)
def test_beads_are_four_stacks_of_ten_planes_by_step_or_by_position(real_data: Path, name: str) -> None:
    folder = real_data / "beads_zstack"
    groups = find_inputs([str(folder / name)])
    assert [group.stem for group in groups] == [
        "E07_s1_w1_step", "E07_s2_w1_step", "E08_s1_w1_step", "E08_s2_w1_step"
    ]  # fmt: skip
    for group, image in zip(groups, images_of(groups), strict=True):
        assert image.shape == (1, 1, 10, 512, 512)
        assert [f"step{i:02}" in path.name for i, path in enumerate(group.paths, start=1)] == [True] * 10
    fourth = open_image(folder / "E07_s1_w1_step04_Z9333.2um.tif").read()
    np.testing.assert_array_equal(groups[0].open().read({"Z": slice(3, 4)}), fourth)


def test_beads_open_as_a_stack_from_a_list_of_files(real_data: Path) -> None:
    paths = sorted((real_data / "beads_zstack").glob("E08_s2_*.tif"))
    image = open_stack(paths, "Z", name="E08_s2")
    assert image.shape == (1, 1, 10, 512, 512)
    assert image.name == "E08_s2"


@pytest.mark.parametrize(
    ("folder", "count", "shapes"),
    [
        ("he_lymph_node_10x", 32, {(1, 3, 1, 512, 512)}),
        ("he_breast_40x", 2, {(1, 3, 1, 2560, 3584), (1, 3, 1, 2048, 4096)}),
        ("he_oral_20x", 10, {(1, 3, 1, 640, 640)}),
    ],
)
def test_stained_tissue_is_rgb_and_pairs_with_masks_of_its_size(
    real_data: Path, folder: str, count: int, shapes: set[tuple[int, ...]]
) -> None:
    inputs = find_inputs([str(real_data / folder / "images")])
    pairing = pair(inputs, {"tumor": find_inputs([str(real_data / folder / "masks")])})
    assert len(pairing.pairs) == len(inputs) == count
    assert pairing.unpaired == ()
    found = set()
    for one in pairing.pairs:
        image, mask = one.input.open(), one.labels["tumor"].open()
        assert image.rgb
        assert image.dtype == np.uint8
        assert image.intensity_range == (0, 255)
        assert not mask.rgb
        assert mask.shape == (1, 1, *image.shape[2:])
        found.add(image.shape)
    assert found == shapes
    red, _, blue = pairing.pairs[0].input.open().read()[0, :, 0]
    assert red.mean() > 100
    assert blue.mean() > 100


def test_lymph_node_patches_are_named_by_their_folder(real_data: Path) -> None:
    groups = find_inputs([str(real_data / "he_lymph_node_40x_patches" / "{name}" / "*.png")])
    assert len(groups) == 63
    assert {group.captures["name"] for group in groups} == {"tumor", "normal"}
    refuse_equal_stems(groups)
    for image in images_of(groups):
        assert image.shape == (1, 3, 1, 256, 256)
        assert image.rgb
