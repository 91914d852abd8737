"""The grammar of file patterns: files, folders, stacks, mosaics, pairs and the published data's names."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image, save_image
from lincei.pattern import InputGroup, find_inputs, find_isl, isl_keys, pair, refuse_equal_stems


def write(folder: Path, *names: str, shape: tuple[int, ...] = (4, 6)) -> None:
    """Write a TIFF under each name; its pixels all have the number of the file."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full(shape, number, np.uint16))


def values(image: Image) -> list[int]:
    """Return the first pixel of each plane, in the order T, C, Z."""
    return [int(value) for value in image.read()[..., 0, 0].ravel()]


def stems(folder: Path, *patterns: str) -> list[str]:
    return [group.stem for group in find_inputs([str(folder / pattern) for pattern in patterns])]


# Which files are inputs


def test_a_file_is_one_image(tmp_path: Path) -> None:
    write(tmp_path, "plate.1_a1.tif")
    (group,) = find_inputs([tmp_path / "plate.1_a1.tif"])
    assert group.stem == "plate.1_a1"
    assert group.open().shape == (1, 1, 1, 4, 6)


def test_a_folder_is_a_batch_of_the_images_in_it(tmp_path: Path) -> None:
    write(tmp_path, "a10.tif", "a2.tif", "b.ome.tif", ".hidden.tif", "deeper/c.tif")
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    save_image(Image(np.zeros((1, 1, 1, 4, 6))), tmp_path / "d.ome.zarr")
    assert stems(tmp_path, ".") == ["a2", "a10", "b", "d"]


def test_an_ome_zarr_folder_is_one_image(tmp_path: Path) -> None:
    save_image(Image(np.zeros((1, 1, 1, 4, 6))), tmp_path / "d.ome.zarr")
    assert stems(tmp_path, "d.ome.zarr") == ["d"]


def test_a_multi_file_ome_tiff_counts_once(tmp_path: Path) -> None:
    names = ["set_0.ome.tif", "set_1.ome.tif"]
    data = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:0000000{z}-0000-0000-0000-'
        f"000000000000</UUID></TiffData>"
        for z, name in enumerate(names)
    )
    for z, name in enumerate(names):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:0000000{z}-0000-0000-0000-000000000000"><Image ID="Image:0">'
            '<Pixels ID="Pixels:0" SizeX="6" SizeY="4" SizeZ="2" SizeC="1" SizeT="1" '
            'DimensionOrder="XYZCT" Type="uint16">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / name, np.full((4, 6), z, np.uint16), description=xml, metadata=None)
    write(tmp_path, "other.ome.tif")
    groups = find_inputs([tmp_path])
    assert [group.stem for group in groups] == ["other", "set_0"]
    assert values(groups[1].open()) == [0, 1]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    with pytest.raises(LinceiError, match="holds no image"):
        find_inputs([tmp_path])


def test_a_file_that_is_not_there_fails_when_it_is_opened_and_holds_up_no_other(tmp_path: Path) -> None:
    write(tmp_path, "a.tif")
    groups = find_inputs([tmp_path / "gone.tif", tmp_path / "a.tif"])
    assert len(groups) == 2
    with pytest.raises(LinceiError, match="no such file"):
        groups[0].open()
    assert groups[1].open().shape == (1, 1, 1, 4, 6)


def test_a_file_that_two_inputs_name_is_done_once(tmp_path: Path) -> None:
    write(tmp_path, "a.tif", "b.tif")
    assert stems(tmp_path, "a.tif", "*.tif", ".") == ["a", "b"]


def test_a_file_is_done_once_however_its_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "plate/a_z1.tif", "plate/a_z2.tif")
    monkeypatch.chdir(tmp_path)
    spelled = ["plate", "plate/../plate", tmp_path / "plate"]
    assert [group.source for group in find_inputs([Path(text) / "a_z1.tif" for text in spelled])] == [
        str(Path("plate/a_z1.tif"))
    ]
    assert len(find_inputs([Path(text) / "a_z{z}.tif" for text in spelled])) == 1


def test_a_linked_folder_is_the_folder_and_a_linked_file_an_input_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "plate/a.tif")
    try:
        (tmp_path / "link").symlink_to(tmp_path / "plate")
        (tmp_path / "plate/b.tif").symlink_to("a.tif")
    except OSError:
        pytest.skip("links are not allowed here")
    assert stems(tmp_path, "plate", "link") == ["a", "b"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tif", ["a1", "a2", "b10"]),
        ("a?.tif", ["a1", "a2"]),
        ("**/a*.tif", ["a1", "a2", "a3", "a4"]),
        ("d/**/*.tif", ["a3", "a4"]),
        ("*/a*.tif", ["a3"]),
        ("{name}.tif", ["a1", "a2", "b10"]),
        ("d/**", ["a3", "a4"]),
        ("d/*", ["a3"]),
    ],
)
def test_wildcards_name_files(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    write(tmp_path, "a1.tif", "a2.tif", "b10.tif", "d/a3.tif", "d/e/a4.tif")
    (tmp_path / "d" / "notes.txt").write_text("not an image", encoding="utf-8")
    assert sorted(stems(tmp_path, pattern)) == expected


def test_a_name_with_braces_that_exists_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, "odd{z}.tif")
    assert stems(tmp_path, "odd{z}.tif") == ["odd{z}"]


def test_nothing_that_fits_is_told_with_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "a1.tif")
    with pytest.raises(LinceiError, match=r"no file fits this pattern.*a1.tif"):
        find_inputs([str(tmp_path / "phase_z{z}.tif")])
    with pytest.raises(LinceiError, match="no folder"):
        find_inputs([str(tmp_path / "gone" / "*.tif")])


def test_an_unknown_placeholder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no placeholder \{plane\}"):
        find_inputs([str(tmp_path / "a{plane}.tif")])


# Which files join


def test_planes_join_in_numeric_order(tmp_path: Path) -> None:
    write(tmp_path, *[f"phase_z{z}.tif" for z in range(12)])
    (group,) = find_inputs([str(tmp_path / "phase_z{z}.tif")])
    image = group.open(z_step_um=0.3, pixel_size_um=0.5, modality="phase contrast")
    assert values(image) == list(range(12))
    assert image.shape == (1, 1, 12, 4, 6)
    assert image.name == group.stem == "phase"
    assert (image.z_step_um, image.pixel_size_um, image.modality) == (0.3, 0.5, "phase contrast")
    assert image.source.endswith("phase_z{z}.tif")


def test_times_channels_and_planes_join_at_once(tmp_path: Path) -> None:
    names = [f"t{t}_{c}_z{z}.tif" for t in (1, 2) for c in ("DAPI", "phase") for z in (8, 9, 10)]
    write(tmp_path, *names)
    (group,) = find_inputs([str(tmp_path / "t{t}_{c}_z{z}.tif")])
    image = group.open()
    assert image.shape == (2, 2, 3, 4, 6)
    assert image.channel_names == ("DAPI", "phase")
    assert values(image) == list(range(12))


def test_tiles_of_a_mosaic_lie_side_by_side_and_are_read_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, *[f"r{y}_c{x}.tif" for y in (0, 1) for x in (0, 1, 2)])
    (group,) = find_inputs([str(tmp_path / "r{y}_c{x}.tif")])
    image = group.open()
    assert image.shape == (1, 1, 1, 8, 18)
    pixels = image.read()[0, 0, 0]
    np.testing.assert_array_equal(pixels[::4, ::6], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(
        image.read({"Y": slice(2, 6), "X": slice(5, 7)})[0, 0, 0], [[0, 1], [0, 1], [3, 4], [3, 4]]
    )
    (tmp_path / "r1_c2.tif").unlink()
    assert image.read({"X": slice(0, 12)}).shape == (1, 1, 1, 8, 12)


def test_tiles_of_a_row_may_differ_in_width_and_not_in_height(tmp_path: Path) -> None:
    write(tmp_path, "r0_c0.tif", "r1_c0.tif")
    write(tmp_path, "r0_c1.tif", "r1_c1.tif", shape=(4, 3))
    pattern = str(tmp_path / "r{y}_c{x}.tif")
    assert find_inputs([pattern])[0].open().shape == (1, 1, 1, 8, 9)
    write(tmp_path, "r1_c1.tif", shape=(5, 3))
    with pytest.raises(LinceiError, match=r"r1_c1.tif: its size along Y is 5, and 4 in r1_c0.tif"):
        find_inputs([pattern])[0].open()


@pytest.mark.parametrize("order", ["phase", "other"])
def test_wells_fields_and_names_are_images_of_their_own(tmp_path: Path, order: str) -> None:
    write(
        tmp_path,
        *[f"{well}_s{s}_{order}_z{z}.tif" for well in ("A01", "B-2") for s in (1, 2) for z in (0, 1)],
    )
    groups = find_inputs([str(tmp_path / "{well}_s{field}_{name}_z{z}.tif")])
    assert [group.stem for group in groups] == [
        f"A01_s1_{order}", f"A01_s2_{order}", f"B-2_s1_{order}", f"B-2_s2_{order}"
    ]  # fmt: skip
    assert groups[2].captures == {"well": "B-2", "field": "1", "name": order}
    assert [values(group.open()) for group in groups] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_placeholder_that_comes_twice_has_one_value(tmp_path: Path) -> None:
    write(tmp_path, "A1/A1_z0.tif", "A1/B2_z0.tif", "B2/B2_z0.tif")
    groups = find_inputs([str(tmp_path / "{well}" / "{well}_z{z}.tif")])
    assert [group.stem for group in groups] == ["A1", "B2"]


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        ("phase_z{z}.tif", ["phase_z0.tif"], "phase"),
        ("img{z}.tif", ["img0.tif"], "img"),
        ("a_t{t}_z{z}_c{c}.ome.tif", ["a_t0_z0_c0.ome.tif"], "a"),
        ("a_ch{c}_z{z}um.tif", ["a_ch0_z1.5um.tif"], "a"),
        ("plate.1_z{z}.tif", ["plate.1_z0.tif"], "plate.1"),
        ("blitz{z}.tif", ["blitz1.tif"], "blitz"),
        ("exp{t}.tif", ["exp1.tif"], "exp"),
        ("{name}/z{z}.tif", ["neurons/z0.tif"], "neurons_run"),
        ("{name}/phase_z{z}.tif", ["neurons/phase_z0.tif"], "neurons_phase"),
        ("{well}/{field}.tif", ["A1/3.tif"], "A1_3"),
        ("*_z{z}.tif", ["a_z0.tif"], "a"),
        ("a_z{z}_??.tif", ["a_z0_xy.tif"], "a"),
    ],
)
def test_a_stacks_stem_is_the_fixed_part_of_its_pattern(
    tmp_path: Path, pattern: str, names: list[str], expected: str
) -> None:
    write(tmp_path / "run", *names)
    (found,) = stems(tmp_path / "run", pattern)
    if expected == "neurons_run":  # nothing is left of the name: the folder stands in
        assert found == "neurons_neurons"
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ((0, 1, 3), "z = 2"),
        ((0, 1, 2, 6), "z = 3, 4, 5"),
        ((0, 300, 900), "z = 600"),
        ((1.5, 2.0, 2.5, 3.5), "z = 3"),
    ],
)
def test_a_missing_plane_is_named(tmp_path: Path, numbers: tuple[float, ...], missing: str) -> None:
    write(tmp_path, *[f"phase_z{z}.tif" for z in numbers])
    (group,) = find_inputs([str(tmp_path / "phase_z{z}.tif")])
    with pytest.raises(LinceiError) as error:
        group.open()
    assert f"there is none for {missing}" in str(error.value)
    assert "phase_z{z}.tif" in str(error.value)


@pytest.mark.parametrize("numbers", [(3, 4, 5), (0, 2, 4), (0, 300, 600), (1.5, 2.02, 2.49), (7,)])
def test_steps_of_any_size_are_complete(tmp_path: Path, numbers: tuple[float, ...]) -> None:
    write(tmp_path, *[f"phase_z{z}.tif" for z in numbers])
    (group,) = find_inputs([str(tmp_path / "phase_z{z}.tif")])
    assert group.open().shape[2] == len(numbers)


def test_a_plane_missing_from_one_channel_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a_z0.tif", "a_z1.tif", "b_z0.tif")
    (group,) = find_inputs([str(tmp_path / "{c}_z{z}.tif")])
    with pytest.raises(LinceiError, match="the file for c = b, z = 1 is missing"):
        group.open()


def test_two_files_for_one_plane_are_named(tmp_path: Path) -> None:
    write(tmp_path, "z1.tif", "z01.tif", "z2.tif")
    (group,) = find_inputs([str(tmp_path / "z{z}.tif")])
    with pytest.raises(LinceiError, match=r"same plane: z0?1.tif and z0?1.tif"):
        group.open()


def test_numbers_padded_in_some_names_only_are_equal(tmp_path: Path) -> None:
    write(tmp_path, "a_z1.tif", "a_z2.tif", "b_z01.tif", "b_z02.tif")
    (group,) = find_inputs([str(tmp_path / "{c}_z{z}.tif")])
    assert values(group.open()) == [0, 1, 2, 3]


def test_planes_of_different_sizes_are_named(tmp_path: Path) -> None:
    write(tmp_path, "z0.tif", "z1.tif")
    write(tmp_path, "z2.tif", shape=(4, 7))
    (group,) = find_inputs([str(tmp_path / "z{z}.tif")])
    with pytest.raises(LinceiError, match=r"z2.tif: its size along X is 7, and 6 in z0.tif"):
        group.open()


def test_a_star_behind_the_planes_number_may_differ_from_plane_to_plane(tmp_path: Path) -> None:
    write(tmp_path, "A_step1_at0.11um.tif", "A_step2_at5.2um.tif", "B_step1_at0.3um.tif")
    groups = find_inputs([str(tmp_path / "{name}_step{z}_at*um.tif")])
    assert [(group.stem, len(group.files)) for group in groups] == [("A_step_at", 2), ("B_step_at", 1)]


def test_a_star_before_it_must_not(tmp_path: Path) -> None:
    write(tmp_path, "x1_z1.tif", "x2_z2.tif")
    with pytest.raises(UsageError, match=r"no two files join.*Write \?"):
        find_inputs([str(tmp_path / "*_z{z}.tif")])


# Stems


def test_two_inputs_with_one_stem_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "d1/a.tif", "d2/A.ome.tif", "d3/b.tif")
    groups = find_inputs([tmp_path / "d1", tmp_path / "d3"])
    refuse_equal_stems(groups)
    with pytest.raises(LinceiError, match="under the same name") as error:
        refuse_equal_stems([*groups, *find_inputs([tmp_path / "d2"])])
    assert str(Path("d1", "a.tif")) in str(error.value)
    assert str(Path("d2", "A.ome.tif")) in str(error.value)


# Pairs


def found(folder: Path, pattern: str) -> list[InputGroup]:
    return find_inputs([str(folder / pattern)])


def test_inputs_and_labels_pair_by_equal_placeholders(tmp_path: Path) -> None:
    write(
        tmp_path, *[f"{w}_phase_z{z}.tif" for w in ("A1", "A2") for z in (0, 1)], "A2_dapi.tif", "A1_dapi.tif"
    )
    pairing = pair(found(tmp_path, "{well}_phase_z{z}.tif"), {"DAPI": found(tmp_path, "{well}_dapi.tif")})
    assert [(p.input.stem, p.labels["DAPI"].stem) for p in pairing.pairs] == [
        ("A1_phase", "A1_dapi"),
        ("A2_phase", "A2_dapi"),
    ]
    assert pairing.unpaired == ()


def test_inputs_and_labels_pair_by_stars(tmp_path: Path) -> None:
    write(tmp_path, "in/a_1.tif", "in/b_2.tif", "out/x_b_2.png.tif", "out/x_a_1.png.tif")
    pairing = pair(found(tmp_path, "in/*_*.tif"), {"DNA": found(tmp_path, "out/x_*_*.png.tif")})
    assert [p.labels["DNA"].captures["*1"] for p in pairing.pairs] == ["a", "b"]


def test_folders_pair_by_the_names_of_their_files(tmp_path: Path) -> None:
    write(tmp_path, "images/1.tif", "images/2.tif", "masks/2.ome.tif", "masks/1.tif")
    pairing = pair(found(tmp_path, "images"), {"tumor": found(tmp_path, "masks")})
    assert [(p.input.stem, p.labels["tumor"].stem) for p in pairing.pairs] == [("1", "1"), ("2", "2")]


def test_a_single_input_pairs_with_a_single_label(tmp_path: Path) -> None:
    write(tmp_path, "phase_z0.tif", "phase_z1.tif", "dapi.tif", "map2.tif")
    labels = {"DAPI": found(tmp_path, "dapi.tif"), "MAP2": found(tmp_path, "map2.tif")}
    pairing = pair(found(tmp_path, "phase_z{z}.tif"), labels)
    assert [sorted(p.labels) for p in pairing.pairs] == [["DAPI", "MAP2"]]


def test_what_did_not_pair_is_listed_and_partial_labels_are_kept(tmp_path: Path) -> None:
    write(tmp_path, *[f"{w}_phase.tif" for w in ("A1", "A2", "A3")])
    write(tmp_path, "A1_dapi.tif", "A4_dapi.tif", "A2_map2.tif", "A1_map2.tif")
    labels = {name: found(tmp_path, f"{{well}}_{name.lower()}.tif") for name in ("DAPI", "MAP2")}
    pairing = pair(found(tmp_path, "{well}_phase.tif"), labels)
    assert [(p.input.stem, sorted(p.labels)) for p in pairing.pairs] == [
        ("A1_phase", ["DAPI", "MAP2"]),
        ("A2_phase", ["MAP2"]),
    ]
    told = [sentence.replace(f"{tmp_path}{Path('/x').parts[0]}", "") for sentence in pairing.unpaired]
    assert told == [
        "A2_phase.tif: there is no DAPI for it.",
        "A3_phase.tif: there is no DAPI for it.",
        "A4_dapi.tif: there is no input for this DAPI.",
        "A3_phase.tif: there is no MAP2 for it.",
    ]


def test_ambiguous_pairs_are_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, "A1_1_phase.tif", "A1_2_phase.tif", "A1_dapi.tif", "A1_1_map2_a.tif", "A1_1_map2_b.tif")
    labels = {
        "DAPI": found(tmp_path, "{well}_dapi.tif"),
        "MAP2": found(tmp_path, "{well}_{field}_map2_{name}.tif"),
    }
    pairing = pair(found(tmp_path, "{well}_{field}_phase.tif"), labels)
    assert pairing.pairs == ()
    text = " ".join(pairing.unpaired)
    assert "several inputs fit this DAPI" in text
    assert "several files fit as MAP2" in text


def test_patterns_with_nothing_in_common_do_not_pair_several(tmp_path: Path) -> None:
    write(tmp_path, "A1_phase.tif", "A2_phase.tif", "dapi.tif")
    pairing = pair(found(tmp_path, "{well}_phase.tif"), {"DAPI": found(tmp_path, "dapi.tif")})
    assert pairing.pairs == ()
    assert len(pairing.unpaired) == 3


# The published data

EARLIER = (
    "lab-FINKBEINER,condition-KEVAN_0_8,acquisition_date,year-2015,month-10,day-5,minute-0,well-A4,"
    "tile_computation-STITCHED,{depth},channel-{channel},is_mask-{mask}.png"
)
LATER = (
    "lab-Rubin,condition-scott_1_0,acquisition_date,year-2016,month-2,day-6,well-r0{well},"
    "{depth},channel,value-{channel},is_mask-false,kind,value-ORIGINAL.png"
)


def write_png(folder: Path, name: str, value: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(imagecodecs.png_encode(np.full((4, 6), value, np.uint16)))


def test_both_spellings_of_a_published_name_are_parsed() -> None:
    earlier = isl_keys(EARLIER.format(depth="z_depth-7", channel="PHASE_CONTRAST", mask="false"))
    assert earlier == {
        "lab": "FINKBEINER",
        "condition": "KEVAN_0_8",
        "acquisition_date": "2015-10-5-0",
        "well": "A4",
        "tile_computation": "STITCHED",
        "z_depth": "7",
        "channel": "PHASE_CONTRAST",
        "is_mask": "false",
    }
    later = isl_keys(
        LATER.format(well="c0", depth="depth_computation,value-MAXPROJECT", channel="DAPI_CONFOCAL")
    )
    assert later["depth_computation"] == "MAXPROJECT"
    assert later["channel"] == "DAPI_CONFOCAL"
    assert later["well"] == "r0c0"
    assert later["kind"] == "ORIGINAL"
    assert isl_keys("holiday.png") == {}


def test_the_earlier_spelling_gives_a_stack_labels_and_masks(tmp_path: Path) -> None:
    folder = tmp_path / "condition_blue_sample"
    for z in range(13):
        write_png(folder, EARLIER.format(depth=f"z_depth-{z}", channel="PHASE_CONTRAST", mask="false"), z)
    for value, channel in enumerate(("DAPI_CONFOCAL", "MAP2_CONFOCAL", "NFH_CONFOCAL"), start=100):
        write_png(
            folder, EARLIER.format(depth="depth_computation-MAXPROJECT", channel=channel, mask="false"), value
        )
    write_png(
        folder, EARLIER.format(depth="depth_computation-MAXPROJECT", channel="DAPI_CONFOCAL", mask="true"), 1
    )
    (field,) = find_isl(tmp_path)
    image = field.input.open()
    assert field.input.stem == "FINKBEINER_KEVAN_0_8_2015-10-5-0_A4_STITCHED"
    assert values(image) == list(range(13))
    assert image.modality == "phase contrast"
    assert sorted(field.labels) == ["DAPI_CONFOCAL", "MAP2_CONFOCAL", "NFH_CONFOCAL"]
    label = field.labels["MAP2_CONFOCAL"].open()
    assert values(label) == [101]
    assert label.channel_names == ("MAP2_CONFOCAL",)
    assert label.modality is None
    assert values(field.masks["DAPI_CONFOCAL"].open()) == [1]


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Write two fields in the later spelling, with predictions among them."""
    folder = tmp_path / "Rubin" / "scott_1_0"
    for number, well in enumerate(("c0", "c1")):
        for z in range(4):
            name = LATER.format(well=well, depth=f"z_depth-{z}", channel="BRIGHTFIELD")
            write_png(folder, name, 10 * number + z)
        name = LATER.format(well=well, depth="depth_computation,value-MAXPROJECT", channel="DAPI_WIDEFIELD")
        write_png(folder, name, 100 + number)
        predicted = name.replace(
            "is_mask-false,kind,value-ORIGINAL", "statistic,value-MEDIAN,kind,value-PREDICTED"
        )
        write_png(folder, predicted, 255)
    return tmp_path


def test_the_later_spelling_gives_fields_without_predictions(later: Path) -> None:
    fields = find_isl(later)
    assert [values(field.input.open()) for field in fields] == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert [values(field.labels["DAPI_WIDEFIELD"].open()) for field in fields] == [[100], [101]]
    assert {field.input.modality for field in fields} == {"bright field"}
    refuse_equal_stems([field.input for field in fields])


def test_the_preset_is_part_of_the_grammar_and_pairs(later: Path) -> None:
    inputs = find_inputs([f"isl:{later}"])
    labels = {"DAPI": find_inputs([f"isl:{later}#DAPI_WIDEFIELD"])}
    pairing = pair(inputs, labels)
    assert pairing.unpaired == ()
    assert [values(p.labels["DAPI"].open()) for p in pairing.pairs] == [[100], [101]]


def test_a_plane_missing_from_a_published_stack_is_named(later: Path) -> None:
    next(later.rglob("*c0,z_depth-1,*")).unlink()
    first, second = find_inputs([f"isl:{later}"])
    with pytest.raises(LinceiError, match="z = 1"):
        first.open()
    assert second.open().shape[2] == 4


def test_pictures_of_several_channels_are_left_out_with_a_warning(later: Path) -> None:
    name = LATER.format(well="c0", depth="depth_computation,value-MAXPROJECT", channel="X")
    write_png(later, name.replace("channel,value-X,", ""))
    with pytest.warns(LinceiWarning, match="1 pictures that show several channels"):
        fields = find_isl(later)
    assert len(fields) == 2


def test_other_folders_are_not_the_published_data(tmp_path: Path) -> None:
    write_png(tmp_path, "holiday.png")
    with pytest.raises(LinceiError, match="published in silico labeling data"):
        find_isl(tmp_path)
    with pytest.raises(LinceiError, match="no such folder"):
        find_inputs([f"isl:{tmp_path / 'gone'}"])
    with pytest.raises(UsageError, match="names no folder"):
        find_inputs(["isl:"])
