"""The models that come along: complete, small, honest, and right on real defocus that they never saw."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile

import focusqc
from focusqc.levels import certainty
from focusqc.patches import PATCH_PX
from lincei.errors import LinceiWarning
from lincei.image import Image, open_image
from lincei.metrics import rank_correlation
from lincei.model import find_model, list_models
from lincei.model_check import check_model

SHIPPED = ("focus-fluorescence", "focus-he")


def test_they_are_found_by_name():
    assert set(SHIPPED) <= {model.name for model in list_models("focus")}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_every_engine_answers_their_test_as_the_trained_network_did(name, engine):
    report = check_model(find_model(name), engine)
    assert report.passed, report.describe()


@pytest.mark.parametrize("name", SHIPPED)
def test_their_card_says_whose_images_which_license_and_how_to_train_them_again(name):
    model = find_model(name)
    assert model.card.license
    command = model.card.training["command"]
    assert command.startswith("lincei train-focus ")
    assert "$LINCEI_DATA/" in command
    assert "Images: " in model.file("README.md").read_text("utf-8")
    assert model.size_bytes < 2e6
    assert not set(model.card.training["test_fields"]) & set(model.card.training["train_fields"])


@pytest.mark.parametrize("name", SHIPPED)
def test_what_their_card_measured_is_of_use(name):
    figures = find_model(name).card.figures
    assert figures["test"]["within_one"] > 0.9
    assert figures["test"]["calibration_error"] < 0.06
    assert figures["blank"]["noise_certainty_mean"] < 0.1
    assert figures["blank"]["black_certainty"] < 0.1
    assert figures["blank"]["saturated_certainty"] < 0.1


def test_really_sharp_nuclei_are_rated_sharp_and_really_defocused_ones_blurred(real_data):
    for path in sorted((real_data / "bbbc006_focus").glob("*.tif")):
        rating = focusqc.focus(open_image(path)).plane()
        if path.name.startswith("sharp"):
            assert rating.expected_level < 2.7, path.name
            assert rating.in_focus == "yes", path.name
        else:
            assert rating.expected_level > 8, path.name
            assert rating.in_focus == "no", path.name


def test_beads_are_rated_worse_the_farther_they_are_from_focus(real_data):
    for field in ("E07_s1", "E07_s2", "E08_s1", "E08_s2"):
        paths = sorted((real_data / "beads_zstack").glob(f"{field}_*.tif"))
        assert len(paths) == 10
        levels = np.array([focusqc.focus(open_image(path)).plane().expected_level for path in paths])
        z_um = np.array([float(re.search(r"_Z([\d.]+)um", path.name)[1]) for path in paths])
        # The set is sharpest at step 4 to 5, as its makers say.
        distance = np.abs(z_um - z_um[3:5].mean())
        assert rank_correlation(levels, distance) > 0.85, field


def test_places_without_cells_say_that_they_are_uncertain(real_data):
    """The emptiest patches of real fields: camera noise and nothing else."""
    values = []
    for path in sorted((real_data / "bbbc039_nuclei").glob("*.tif"))[:30]:
        plane = tifffile.imread(path)
        rating = focusqc.focus(Image.from_array(plane)).plane()
        for row, y in enumerate(rating.y):
            for column, x in enumerate(rating.x):
                part = plane[y : y + PATCH_PX, x : x + PATCH_PX].astype(float)
                # No pixel stands out from the noise.
                if part.max() - part.mean() < 6 * part.std() and part.std() < 0.05 * part.mean():
                    values.append(rating.patch_certainties[row, column])
    if len(values) < 5:
        pytest.skip("fewer than five empty patches in these fields")
    assert np.median(values) < 0.2


def test_simulated_noise_says_that_it_is_uncertain():
    random = np.random.default_rng(0)
    plane = random.poisson(400, (420, 420)).astype(np.uint16)
    for name in SHIPPED:
        rating = focusqc.focus(Image.from_array(plane), name).plane()
        assert rating.in_focus == "uncertain"
        assert np.mean(certainty(rating.probabilities)) < 0.1


def test_a_sharp_section_is_rated_sharper_than_the_same_blurred(real_data):
    from focusqc.defocusing import defocused

    path = next((real_data / "he_oral_20x" / "images").glob("*"))
    image = open_image(path)
    blurred = np.stack([defocused(channel, 7) for channel in image.read()[0, :, 0]], axis=-1)
    sharp_rating = focusqc.focus(image, "focus-he").plane()
    blurred_rating = focusqc.focus(Image.from_array(blurred.clip(0, 255).astype(np.uint8), "YXS"), "focus-he")
    assert sharp_rating.expected_level < 3
    assert blurred_rating.plane().expected_level > 5


def test_transmitted_light_that_does_not_say_so_is_doubted(real_data):
    with pytest.warns(LinceiWarning, match="background is not dark"):
        rating = focusqc.focus(open_image(real_data / "isl_motor_neurons" / "phase_z06.tif"))
    assert "phase contrast" in rating.plane().notes[-1]


def test_fluorescence_is_not_doubted(real_data):
    paths = [*(real_data / "bbbc006_focus").glob("*.tif"), *(real_data / "beads_zstack").glob("*step0[159]*")]
    for path in [*paths, *(real_data / "isl_motor_neurons").glob("*maxproj.tif")]:
        assert not focusqc.focus(open_image(path)).plane().notes  # a warning would be an error here
