"""What `sample_data.cells` promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lincei.image import open_image
from sample_data.cell_shapes import TEXTURE_PX, Kind, Thing, draw
from sample_data.cells import (
    LABELS,
    PIXEL_SIZE_UM,
    TIME_STEP_S,
    Z_STEP_UM,
    SimulatedField,
    simulate_cells,
    write_fields,
)

DEFAULT = ("nuclei", "cytoplasm")
MODALITIES = ("phase contrast", "bright field", "DIC")


@pytest.fixture(scope="module")
def field() -> SimulatedField:
    return simulate_cells(3, size_px=320, planes=5)


@pytest.fixture(scope="module")
def mixed() -> SimulatedField:
    """Living cells of both types, dead ones and debris, with every label."""
    return simulate_cells(8, size_px=512, planes=1, labels=tuple(LABELS), debris_share=0.7)


@pytest.fixture(scope="module")
def series() -> SimulatedField:
    return simulate_cells(2, size_px=160, planes=3, frames=4, lamp_drift=0.05, bleaching=0.2)


def gray(image_data: NDArray) -> NDArray[np.float64]:
    return image_data.astype(np.float64)


def stain(field: SimulatedField, label: str) -> NDArray[np.float64]:
    return gray(field.labels[label].read()[0, 0, 0])


def planes(field: SimulatedField) -> NDArray[np.float64]:
    return gray(field.stack.read()[0, 0])


@pytest.fixture(scope="module")
def seen(field: SimulatedField) -> dict[str, NDArray[np.float64]]:
    """The field's planes and stains as numbers."""
    stack = planes(field)
    stains = {label: stain(field, label) for label in field.labels}
    return {"focus": stack[2], "blurred": stack[0], **stains}


def around(field: SimulatedField, *kinds: Kind) -> list[tuple[slice, slice]]:
    """Return windows of 25x25 px around the things of these kinds that lie well inside, clear of others."""
    reach = {"spread cell": 58, "spindle cell": 74, "dead cell": 28, "debris": 28}
    size = field.stack.shape[-1]
    found = []
    for thing in field.things[0]:
        row, column = round(thing.row), round(thing.column)
        clear = all(
            np.hypot(thing.row - other.row, thing.column - other.column) > reach[other.kind]
            for other in field.things[0]
            if other is not thing
        )
        if thing.kind in kinds and clear and min(row, column) >= 12 and max(row, column) < size - 12:
            found.append((slice(row - 12, row + 13), slice(column - 12, column + 13)))
    return found


class TestDeterminism:
    def test_equal_seeds_give_equal_fields_and_others_do_not(self):
        first, second, third = (simulate_cells(seed, size_px=64, planes=3) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.stack.read(), second.stack.read())
        assert not np.array_equal(first.stack.read(), third.stack.read())
        for label in DEFAULT:
            np.testing.assert_array_equal(first.labels[label].read(), second.labels[label].read())
            assert not np.array_equal(first.labels[label].read(), third.labels[label].read())

    def test_a_field_is_the_same_in_another_process(self):
        program = (
            "import hashlib; from sample_data.cells import simulate_cells as s;"
            "print(hashlib.sha256(s(1, size_px=48, planes=1).stack.read().tobytes()).hexdigest())"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        import hashlib

        here = hashlib.sha256(simulate_cells(1, size_px=48, planes=1).stack.read().tobytes()).hexdigest()
        assert run.stdout.strip() == here

    def test_more_planes_show_the_same_cells(self):
        few, many = (simulate_cells(3, size_px=128, planes=count) for count in (1, 5))
        middle = [ndimage.gaussian_filter(planes(f)[f.stack.shape[2] // 2], 1) for f in (few, many)]
        assert np.corrcoef(middle[0].ravel(), middle[1].ravel())[0, 1] > 0.9

    def test_how_it_is_looked_at_changes_neither_the_cells_nor_their_stains(self):
        shares = {"dead_share": 0.2, "spindle_share": 0.3, "size_px": 96, "planes": 1}
        plain = simulate_cells(4, **shares)
        for modality in MODALITIES:
            other = simulate_cells(4, modality=modality, labels=tuple(reversed(LABELS)), **shares)
            assert other.things == plain.things
            for label in DEFAULT:
                np.testing.assert_array_equal(other.labels[label].read(), plain.labels[label].read())
            same = np.array_equal(other.stack.read(), plain.stack.read())
            assert same == (modality == "phase contrast")


class TestWhatAFieldIs:
    @pytest.mark.parametrize(("size", "count"), [(64, 1), (50, 4)])
    def test_sizes_are_those_asked_for(self, size: int, count: int):
        found = simulate_cells(0, size_px=size, planes=count)
        assert found.stack.shape == (1, 1, count, size, size)
        assert tuple(found.labels) == DEFAULT
        assert {image.shape for image in found.labels.values()} == {(1, 1, 1, size, size)}

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_it_says_what_it_is(self, modality: Any):
        found = simulate_cells(3, modality=modality, size_px=32, planes=1, labels=tuple(LABELS))
        stack = found.stack
        assert stack.dtype == np.uint16
        assert stack.modality == modality
        assert stack.pixel_size_um == PIXEL_SIZE_UM
        assert stack.z_step_um == Z_STEP_UM
        assert stack.time_step_s is None
        assert stack.channel_names == (modality,)
        assert "seed 3" in stack.source
        assert tuple(found.labels) == tuple(LABELS)
        for label, color in LABELS.items():
            image = found.labels[label]
            assert image.dtype == np.uint16
            assert image.modality == "fluorescence"
            assert image.pixel_size_um == PIXEL_SIZE_UM
            assert image.channel_names == (label,)
            assert image.channel_colors == (color,)
            assert image.name == f"{stack.name}_{label.replace(' ', '_')}"

    def test_it_takes_the_name_it_is_given(self):
        assert simulate_cells(0, size_px=32, planes=1, name="mine").stack.name == "mine"

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_no_pixel_is_saturated_or_black(self, modality: Any):
        found = simulate_cells(6, modality=modality, size_px=256, planes=3, labels=tuple(LABELS))
        for image in (found.stack, *found.labels.values()):
            pixels = image.read()
            assert pixels.max() < 65_535
            assert pixels.min() > 0

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_an_empty_field_is_even_light_and_a_cameras_noise(self, modality: Any):
        empty = simulate_cells(0, modality=modality, size_px=128, planes=2, cells=0)
        pixels = planes(empty)
        assert pixels.mean() == pytest.approx(20_100, rel=0.01)
        assert pixels.std() == pytest.approx(np.sqrt(20_000), rel=0.05)
        assert np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1] == pytest.approx(0, abs=0.05)
        for label in DEFAULT:
            assert stain(empty, label).std() == pytest.approx(np.sqrt(200), rel=0.05)

    def test_cells_are_of_the_kinds_asked_for(self):
        found = simulate_cells(0, size_px=32, planes=1, cells=40, dead_share=0.25, spindle_share=0.5)
        kinds = [thing.kind for thing in found.things[0]]
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "spread cell": 15, "spindle cell": 15, "dead cell": 10, "debris": 20
        }  # fmt: skip
        plain = {thing.kind for thing in simulate_cells(0, size_px=32, planes=1).things[0]}
        assert plain == {"spread cell", "debris"}

    @pytest.mark.parametrize(
        ("wrong", "sentence"),
        [
            ({"modality": "fluorescence"}, "modality must be one of phase contrast, bright field, DIC"),
            ({"labels": ["nuclei", "DAPI"]}, "labels must be of nuclei.*not 'DAPI'"),
            ({"dead_share": 1.5}, "dead_share must be between 0 and 1, not 1.5"),
            ({"spindle_share": -0.1}, "spindle_share must be between 0 and 1"),
        ],
    )
    def test_what_it_cannot_simulate_is_refused(self, wrong: dict[str, Any], sentence: str):
        with pytest.raises(ValueError, match=sentence):
            simulate_cells(0, size_px=32, planes=1, **wrong)


class TestTruthAndStackCorrespond:
    def test_nuclei_refract_where_their_stain_is(self, seen: dict[str, NDArray[np.float64]]):
        nucleus = seen["nuclei"] > 2000
        empty = (seen["nuclei"] < 300) & (seen["cytoplasm"] < 300)
        assert 0.01 < nucleus.mean() < 0.5
        assert empty.mean() > 0.1
        assert seen["focus"][nucleus].mean() < seen["focus"][empty].mean() - 5 * np.sqrt(20_000) / 10
        mean, square = (ndimage.uniform_filter(seen["focus"] ** power, 5) for power in (1, 2))
        texture = np.sqrt(np.maximum(square - mean**2, 0))
        assert texture[nucleus].mean() > 1.5 * texture[empty].mean()

    def test_pixels_lie_on_pixels(self, seen: dict[str, NDArray[np.float64]]):
        """The dark of the phase image fits the stain best where the stain is, not beside it."""
        dark = -ndimage.gaussian_filter(seen["focus"], 1)
        fits = {
            (dy, dx): float(
                np.corrcoef(np.roll(seen["nuclei"], (dy, dx), (0, 1)).ravel(), dark.ravel())[0, 1]
            )
            for dy in (-6, -3, 0, 3, 6)
            for dx in (-6, -3, 0, 3, 6)
        }
        assert max(fits, key=lambda shift: fits[shift]) == (0, 0)
        assert fits[0, 0] > 0.2

    def test_each_nucleus_lies_in_the_cytoplasm_of_its_cell(self, seen: dict[str, NDArray[np.float64]]):
        inside = ndimage.binary_erosion(seen["nuclei"] > 2000)
        assert (seen["cytoplasm"][inside] > 300).mean() > 0.99

    def test_the_membrane_surrounds_the_cytoplasm(self):
        found = simulate_cells(2, size_px=256, planes=1, labels=("cytoplasm", "membrane"))
        inside = ndimage.binary_opening(stain(found, "cytoplasm") > 500, iterations=2)
        edge = inside ^ ndimage.binary_erosion(inside, iterations=2)
        membrane = stain(found, "membrane")
        assert membrane[edge].mean() > 2 * membrane[ndimage.binary_erosion(inside, iterations=5)].mean()
        assert membrane[ndimage.binary_dilation(inside, iterations=6) == 0].mean() < 400

    def test_the_middle_plane_is_the_sharp_one(self, seen: dict[str, NDArray[np.float64]]):
        def fineness(plane: NDArray[np.float64]) -> float:
            band = ndimage.gaussian_filter(plane, 1) - ndimage.gaussian_filter(plane, 2)
            return float(band.std())

        assert fineness(seen["focus"]) > 1.1 * fineness(seen["blurred"])


class TestModalities:
    def test_cells_nearly_vanish_in_bright_field_in_focus_and_reverse_through_focus(self):
        found = simulate_cells(5, modality="bright field", size_px=256, planes=7, debris_share=0)
        stack = planes(found)
        cell = stain(found, "cytoplasm") > 600
        below, middle, above = (
            ndimage.gaussian_filter(stack[i], 1)[cell] / np.median(stack[i]) - 1 for i in (0, 3, 6)
        )
        assert min(below.std(), above.std()) > 0.01
        assert middle.std() < 0.6 * min(below.std(), above.std())
        assert np.corrcoef(below, above)[0, 1] < -0.5

    def test_dic_shows_a_relief_lit_from_the_upper_left(self):
        found = simulate_cells(5, modality="DIC", size_px=256, planes=1)
        relief = ndimage.gaussian_filter(planes(found)[0], 1)
        down, right = np.gradient(ndimage.gaussian_filter(stain(found, "cytoplasm"), 2))
        along = np.corrcoef(relief.ravel(), (down + right).ravel())[0, 1]
        across = np.corrcoef(relief.ravel(), (down - right).ravel())[0, 1]
        assert along > 0.25
        assert abs(across) < 0.3 * along

    def test_phase_contrast_shows_dark_cells_with_bright_halos(self, field: SimulatedField):
        image = ndimage.gaussian_filter(planes(field)[2], 0.7)
        body = stain(field, "cytoplasm") > 400
        far = ndimage.distance_transform_edt(~body)
        away = np.median(image[far > 15])
        assert image[stain(field, "nuclei") > 1500].mean() < 0.95 * away
        assert image[(far > 1) & (far < 4)].mean() > 1.02 * away


class TestKinds:
    def test_the_death_label_lights_up_the_dna_of_the_dead_and_nothing_else(self, mixed: SimulatedField):
        death, nuclei = stain(mixed, "cell death"), stain(mixed, "nuclei")
        dead = around(mixed, "dead cell")
        assert len(dead) >= 3
        assert all(death[window].max() > 1000 for window in dead)
        for window in around(mixed, "spread cell", "spindle cell", "debris"):
            assert death[window].max() < 300
        lit = death > 1000
        assert (nuclei[lit] > 900).all()
        assert (nuclei > 1000).sum() > 2 * lit.sum()

    def test_debris_takes_no_stain_but_looks_like_a_dead_cell(self, mixed: SimulatedField):
        image = planes(mixed)[0]
        debris, dead = around(mixed, "debris"), around(mixed, "dead cell")
        assert len(debris) >= 3
        for label in LABELS:
            assert all(stain(mixed, label)[window].max() < 300 for window in debris)
        contrasts = [np.mean([image[window].std() for window in windows]) for windows in (debris, dead)]
        assert contrasts[0] > 0.4 * contrasts[1]
        assert contrasts[0] > 3 * np.sqrt(20_000)

    def test_the_cell_type_label_lights_up_one_type_only(self, mixed: SimulatedField):
        spindles, cytoplasm = stain(mixed, "spindle cells"), stain(mixed, "cytoplasm")
        assert len(around(mixed, "spindle cell")) >= 2
        for window in around(mixed, "spindle cell"):
            assert spindles[window].max() > 1500
        for window in around(mixed, "spread cell", "dead cell"):
            assert spindles[window].max() < 300
        assert (cytoplasm[spindles > 1000] > 800).all()

    def test_dead_nuclei_are_smaller_and_brighter_than_living_ones(self, mixed: SimulatedField):
        nuclei = stain(mixed, "nuclei") - 200
        alive, dead = (
            [nuclei[window] for window in around(mixed, *kinds)]
            for kinds in (("spread cell", "spindle cell"), ("dead cell",))
        )
        area = [np.mean([(window > 800).sum() for window in windows]) for windows in (alive, dead)]
        peak = [np.mean([window.max() for window in windows]) for windows in (alive, dead)]
        assert area[1] < 0.6 * area[0]
        assert peak[1] > 1.2 * peak[0]

    @pytest.mark.parametrize("kind", ["spread cell", "spindle cell", "dead cell", "debris"])
    def test_a_thing_fits_its_window_however_it_is_turned_and_whatever_its_seed(self, kind: Kind):
        texture = np.random.default_rng(0).normal(size=(TEXTURE_PX, TEXTURE_PX))
        for seed in range(40):
            drawing = draw(Thing(kind, 0.3, 0.7, 0.0, 0.17 * seed, seed), texture)[2]
            for part in (drawing.phase, drawing.dna, drawing.cytoplasm, drawing.membrane):
                edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
                assert np.abs(edge).max() < 0.02
                assert np.isfinite(part).all()


class TestTimeSeries:
    def test_it_has_a_frame_for_each_time_point(self, series: SimulatedField):
        assert series.stack.shape == (4, 1, 3, 160, 160)
        assert {image.shape for image in series.labels.values()} == {(4, 1, 1, 160, 160)}
        assert series.stack.time_step_s == TIME_STEP_S
        assert len(series.things) == 4

    def test_the_first_frame_is_the_field_without_time(self, series: SimulatedField):
        one = simulate_cells(2, size_px=160, planes=3)
        np.testing.assert_array_equal(series.stack.read()[0], one.stack.read()[0])

    def test_cells_crawl_and_stay_themselves(self, series: SimulatedField):
        steps = [
            np.hypot(now.row - then.row, now.column - then.column)
            for then, now in zip(series.things[0], series.things[1], strict=True)
            if then.kind != "debris"
        ]
        assert 1 < np.mean(steps) < 3
        nuclei = gray(series.labels["nuclei"].read()[:, 0, 0])
        shifted = np.corrcoef(nuclei[0].ravel(), nuclei[3].ravel())[0, 1]
        near = np.corrcoef(nuclei[0].ravel(), nuclei[1].ravel())[0, 1]
        assert 0.2 < shifted < near < 0.99

    def test_the_lamp_fades_and_the_stains_bleach(self, series: SimulatedField):
        light = [np.median(frame) - 100 for frame in series.stack.read()]
        np.testing.assert_allclose(np.divide(light[1:], light[:-1]), 0.95, atol=0.01)
        bright = [np.percentile(frame, 99) - 200 for frame in series.labels["cytoplasm"].read()]
        assert bright[3] / bright[0] == pytest.approx(0.8**3, rel=0.15)

    def test_cells_may_leave_the_field(self):
        found = simulate_cells(0, size_px=32, planes=1, cells=6, frames=120)
        assert any(max(abs(thing.row), abs(thing.column)) > 160 for thing in found.things[-1])
        assert found.stack.shape[0] == 120


class TestFiles:
    def test_fields_are_written_with_their_stains_and_open_as_they_were(self, tmp_path: Path):
        options: dict[str, Any] = {"labels": ("nuclei", "cell death"), "modality": "DIC"}
        paths = write_fields(tmp_path / "new" / "cells", 2, seed=5, size_px=48, planes=3, **options)
        assert [path.name for path in paths] == ["stack_00.ome.tif", "stack_01.ome.tif"]
        assert len(list(paths[0].parent.iterdir())) == 6
        for number, path in enumerate(paths):
            expected = simulate_cells(5 + number, size_px=48, planes=3, **options)
            found = open_image(path)
            np.testing.assert_array_equal(found.read(), expected.stack.read())
            assert found.pixel_size_um == pytest.approx(PIXEL_SIZE_UM)
            assert found.z_step_um == pytest.approx(Z_STEP_UM)
            assert found.modality == "DIC"
            for label, word in (("nuclei", "nuclei"), ("cell death", "cell_death")):
                image = open_image(path.parent / f"{word}_{number:02d}.ome.tif")
                np.testing.assert_array_equal(image.read(), expected.labels[label].read())
                assert image.channel_names == (label,)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sample_data.cells", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_the_command_line_writes_them_too(self, tmp_path: Path):
        run = self.run(str(tmp_path), "--fields", "1", "--size-px", "32")
        assert Path(run.stdout.strip()) == tmp_path / "stack_00.ome.tif"
        assert {path.name for path in tmp_path.iterdir()} == {
            "stack_00.ome.tif", "nuclei_00.ome.tif", "cytoplasm_00.ome.tif"
        }  # fmt: skip

    def test_the_command_line_knows_modalities_labels_and_time(self, tmp_path: Path):
        run = self.run(
            *[str(tmp_path), "--fields", "1", "--size-px", "32", "--planes", "1", "--frames", "2"],
            *["--modality", "bright field", "--label", "cell death", "--label", "membrane"],
        )
        assert run.returncode == 0, run.stderr
        assert {path.name for path in tmp_path.iterdir()} == {
            "stack_00.ome.tif", "cell_death_00.ome.tif", "membrane_00.ome.tif"
        }  # fmt: skip
        assert open_image(tmp_path / "stack_00.ome.tif").shape == (2, 1, 1, 32, 32)

    def test_the_command_line_says_what_is_wrong(self, tmp_path: Path):
        run = self.run(str(tmp_path), "--label", "DAPI")
        assert run.returncode == 2
        assert "labels must be of nuclei" in run.stderr
        assert "Traceback" not in run.stderr
