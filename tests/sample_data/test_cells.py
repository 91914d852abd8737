"""What `sample_data.cells` promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lincei.image import open_image
from sample_data.cells import (
    LABELS,
    PIXEL_SIZE_UM,
    Z_STEP_UM,
    SimulatedField,
    simulate_cells,
    write_fields,
)


@pytest.fixture(scope="module")
def field() -> SimulatedField:
    return simulate_cells(3, size_px=320, planes=5)


def gray(image_data: NDArray) -> NDArray[np.float64]:
    return image_data.astype(np.float64)


@pytest.fixture(scope="module")
def seen(field: SimulatedField) -> dict[str, NDArray[np.float64]]:
    """The field's planes and stains as numbers."""
    stack = gray(field.stack.read()[0, 0])
    stains = {label: gray(image.read()[0, 0, 0]) for label, image in field.labels.items()}
    return {"focus": stack[2], "blurred": stack[0], **stains}


class TestDeterminism:
    def test_equal_seeds_give_equal_fields_and_others_do_not(self):
        first, second, third = (simulate_cells(seed, size_px=64, planes=3) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.stack.read(), second.stack.read())
        assert not np.array_equal(first.stack.read(), third.stack.read())
        for label in LABELS:
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
        few, many = (simulate_cells(2, size_px=128, planes=planes) for planes in (1, 5))
        middle = [
            ndimage.gaussian_filter(gray(f.stack.read()[0, 0, f.stack.shape[2] // 2]), 2) for f in (few, many)
        ]
        assert np.corrcoef(middle[0].ravel(), middle[1].ravel())[0, 1] > 0.9


class TestWhatAFieldIs:
    @pytest.mark.parametrize(("size", "planes"), [(64, 1), (50, 4)])
    def test_sizes_are_those_asked_for(self, size: int, planes: int):
        found = simulate_cells(0, size_px=size, planes=planes)
        assert found.stack.shape == (1, 1, planes, size, size)
        assert set(found.labels) == set(LABELS)
        assert {image.shape for image in found.labels.values()} == {(1, 1, 1, size, size)}

    def test_it_says_what_it_is(self, field: SimulatedField):
        stack = field.stack
        assert stack.dtype == np.uint16
        assert stack.modality == "phase contrast"
        assert stack.pixel_size_um == PIXEL_SIZE_UM
        assert stack.z_step_um == Z_STEP_UM
        assert stack.channel_names == ("phase contrast",)
        assert "seed 3" in stack.source
        for label, color in LABELS.items():
            image = field.labels[label]
            assert image.dtype == np.uint16
            assert image.modality == "fluorescence"
            assert image.pixel_size_um == PIXEL_SIZE_UM
            assert image.channel_names == (label,)
            assert image.channel_colors == (color,)
            assert image.name == f"{stack.name}_{label}"
        assert simulate_cells(0, size_px=32, planes=1, name="mine").stack.name == "mine"

    def test_no_pixel_is_saturated_and_noise_is_a_cameras(self, field: SimulatedField):
        for image in (field.stack, *field.labels.values()):
            pixels = image.read()
            assert pixels.max() < 65_535
            assert pixels.min() > 0

    def test_an_empty_field_is_even_light_and_shot_noise(self):
        empty = simulate_cells(0, size_px=128, planes=2, cells=0)
        pixels = gray(empty.stack.read())
        assert pixels.mean() == pytest.approx(8100, rel=0.01)
        assert pixels.std() == pytest.approx(np.sqrt(8000), rel=0.05)
        for image in empty.labels.values():
            assert gray(image.read()).std() == pytest.approx(np.sqrt(200), rel=0.05)


class TestTruthAndStackCorrespond:
    def test_nuclei_refract_where_their_stain_is(self, seen: dict[str, NDArray[np.float64]]):
        nucleus = seen["nuclei"] > 2000
        empty = (seen["nuclei"] < 300) & (seen["cytoplasm"] < 300)
        assert 0.01 < nucleus.mean() < 0.5
        assert empty.mean() > 0.1
        assert seen["focus"][nucleus].mean() < seen["focus"][empty].mean() - 5 * np.sqrt(8000) / 10
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

    def test_the_middle_plane_is_the_sharp_one(self, seen: dict[str, NDArray[np.float64]]):
        def fineness(plane: NDArray[np.float64]) -> float:
            band = ndimage.gaussian_filter(plane, 1) - ndimage.gaussian_filter(plane, 2)
            return float(band.std())

        assert fineness(seen["focus"]) > 1.1 * fineness(seen["blurred"])


class TestFiles:
    def test_fields_are_written_with_their_stains_and_open_as_they_were(self, tmp_path: Path):
        paths = write_fields(tmp_path / "new" / "cells", 2, seed=5, size_px=48, planes=3)
        assert [path.name for path in paths] == ["stack_00.ome.tif", "stack_01.ome.tif"]
        assert len(list(paths[0].parent.iterdir())) == 6
        for number, path in enumerate(paths):
            expected = simulate_cells(5 + number, size_px=48, planes=3)
            found = open_image(path)
            np.testing.assert_array_equal(found.read(), expected.stack.read())
            assert found.pixel_size_um == pytest.approx(PIXEL_SIZE_UM)
            assert found.z_step_um == pytest.approx(Z_STEP_UM)
            for label in LABELS:
                stain = open_image(path.parent / f"{label}_{number:02d}.ome.tif")
                np.testing.assert_array_equal(stain.read(), expected.labels[label].read())
                assert stain.channel_names == (label,)

    def test_the_command_line_writes_them_too(self, tmp_path: Path):
        command = [
            sys.executable,
            "-m",
            "sample_data.cells",
            str(tmp_path),
            "--fields",
            "1",
            "--size-px",
            "32",
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert Path(run.stdout.strip()) == tmp_path / "stack_00.ome.tif"
        assert {path.name for path in tmp_path.iterdir()} == {
            "stack_00.ome.tif", "nuclei_00.ome.tif", "cytoplasm_00.ome.tif"
        }  # fmt: skip
