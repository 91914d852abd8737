"""What `insilico.transmitted_light` promises."""

from __future__ import annotations

import numpy as np
import pytest

from insilico.transmitted_light import check_modality, transmitted_channel
from lincei.errors import LinceiError, UsageError
from lincei.image import Image


def with_channels(*names: str) -> Image:
    return Image(np.zeros((1, len(names), 1, 8, 8), np.uint8), channel_names=names, source="plate.nd2")


def unnamed(channels: int) -> Image:
    return Image(np.zeros((1, channels, 1, 8, 8), np.uint8), source="plate.tif")


class TestWhichChannel:
    def test_the_only_one_is_taken_whatever_its_name(self):
        assert transmitted_channel(with_channels("DAPI")) == 0
        assert transmitted_channel(unnamed(1)) == 0

    @pytest.mark.parametrize(
        "name",
        [
            "phase contrast", "Phase", "PHASE_CONTRAST", "PhaseContrast", "Ph", "BF", "bf_1", "Brightfield",
            "Bright-Field", "bright_field", "DIC", "TL DIC", "TL", "Trans", "transmitted light",
        ],
    )  # fmt: skip
    def test_it_is_recognized_by_the_names_that_microscopes_give(self, name: str):
        assert transmitted_channel(with_channels("DAPI", name, "GFP")) == 1

    @pytest.mark.parametrize(
        "name", ["mTLR4", "GFP transfected", "dictyostelium GFP", "alpha-tubulin", "TRITC"]
    )
    def test_a_stain_is_not_taken_for_it(self, name: str):
        with pytest.raises(LinceiError, match="not clear"):
            transmitted_channel(with_channels("DAPI", name))

    def test_two_candidates_are_asked_about_by_number_and_name(self):
        with pytest.raises(LinceiError, match="--channel") as caught:
            transmitted_channel(with_channels("DIC", "DAPI", "Phase"))
        assert "0 (DIC), 1 (DAPI), 2 (Phase)" in str(caught.value)
        assert caught.value.where == "plate.nd2"

    def test_several_unnamed_ones_are_asked_about(self):
        with pytest.raises(LinceiError, match="it has 3 channels"):
            transmitted_channel(unnamed(3))

    def test_it_is_asked_for_by_name_or_number(self):
        image = with_channels("DAPI", "Phase", "1")
        assert transmitted_channel(image, "Phase") == 1
        assert transmitted_channel(image, "phase") == 1
        assert transmitted_channel(image, "0") == 0
        assert transmitted_channel(image, "1") == 2, "a name goes before a number"
        assert transmitted_channel(unnamed(3), "2") == 2

    @pytest.mark.parametrize("asked", ["3", "-1", "GFP", "", "1.0", "²"])
    def test_one_that_is_not_there_is_refused_with_what_is(self, asked: str):
        with pytest.raises(UsageError) as caught:
            transmitted_channel(with_channels("DAPI", "Phase", "GFP488"), asked)
        assert "0 (DAPI), 1 (Phase), 2 (GFP488)" in str(caught.value)

    @pytest.mark.parametrize("channel", [None, "0"])
    def test_a_color_image_is_refused(self, channel: str | None):
        image = Image.from_array(np.zeros((8, 8, 3), np.uint8), axes="YXS", source="slide.png")
        with pytest.raises(LinceiError, match=r"slide\.png.*RGB.*gray"):
            transmitted_channel(image, channel)


class TestModality:
    def test_the_models_own_and_an_unknown_one_pass(self):
        image = unnamed(1)
        check_modality(image, ("phase contrast",), "motor-neurons")
        check_modality(image.with_(modality="phase contrast"), ("phase contrast",), "motor-neurons")

    @pytest.mark.parametrize("modality", ["DIC", "bright field", "fluorescence", "H&E"])
    def test_another_is_refused_with_both_names_and_what_to_do(self, modality: str):
        with pytest.raises(LinceiError) as caught:
            check_modality(unnamed(1).with_(modality=modality), ("phase contrast",), "motor-neurons")
        text = str(caught.value)
        for part in ("plate.tif", modality, "phase contrast", "motor-neurons", "--modality"):
            assert part in text
