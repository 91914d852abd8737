"""What `sample_data.slides` and `sample_data.drawn_slides` promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lincei.errors import LinceiError, UsageError
from lincei.image import open_image
from sample_data.drawn_slides import DrawnSlide
from sample_data.slides import FIELD_SETS_UM, GLASS, AssembledSlide, Slide, SlidePart, open_slide

SMALL_UM = (2400.0, 1600.0)


@pytest.fixture(scope="module")
def slide() -> DrawnSlide:
    """A small drawn slide."""
    return DrawnSlide(3, size_um=SMALL_UM)


@pytest.fixture(scope="module")
def overview(slide: DrawnSlide) -> SlidePart:
    return slide.overview(4.0)


@pytest.fixture(scope="module")
def two(real_data: Path) -> AssembledSlide:
    """A slide of two real fields."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINCEI_DATA", str(real_data))
        return AssembledSlide(["he_breast_40x/1008", "he_lymph_node_10x/10670"])


class TestReading:
    def test_a_part_is_as_large_as_asked_for(self, slide: DrawnSlide):
        part = slide.read(100.0, 50.0, (33, 17), 2.5)
        assert part.rgb.shape == (17, 33, 3)
        assert part.rgb.dtype == np.uint8
        assert part.tumor.shape == (17, 33)
        assert part.tumor.dtype == np.bool_

    def test_parts_join_without_a_seam(self, slide: DrawnSlide):
        whole = slide.read(600.0, 500.0, (300, 280), 0.5)
        right = slide.read(600.0 + 130 * 0.5, 500.0 + 140 * 0.5, (170, 140), 0.5)
        assert np.abs(whole.rgb[140:, 130:].astype(int) - right.rgb).max() <= 2
        assert (whole.tumor[140:, 130:] == right.tumor).mean() > 0.999

    def test_a_coarse_part_is_the_mean_of_a_fine_one(self, slide: DrawnSlide):
        fine = slide.read(600.0, 500.0, (480, 480), 0.5).rgb.astype(float)
        coarse = slide.read(600.0, 500.0, (60, 60), 4.0).rgb.astype(float)
        means = fine.reshape(60, 8, 60, 8, 3).mean(axis=(1, 3))
        assert np.abs(means - coarse).mean() < 8
        assert np.corrcoef(means.ravel(), coarse.ravel())[0, 1] > 0.95

    def test_beyond_its_edges_there_is_glass_and_no_tumor(self, slide: DrawnSlide):
        for left, top in ((-500.0, 300.0), (300.0, 5000.0)):
            part = slide.read(left, top, (40, 40), 5.0)
            assert not part.tumor.any()
            assert (part.rgb == GLASS).all()

    def test_nothing_cannot_be_read(self, slide: DrawnSlide):
        with pytest.raises(ValueError, match="cannot be read"):
            slide.read(0.0, 0.0, (0, 10), 1.0)


class TestDrawn:
    def test_equal_seeds_give_equal_slides_and_others_do_not(self, slide: DrawnSlide):
        again, other = DrawnSlide(3, size_um=SMALL_UM), DrawnSlide(4, size_um=SMALL_UM)
        parts = [one.read(700.0, 500.0, (100, 100), 1.0) for one in (slide, again, other)]
        np.testing.assert_array_equal(parts[0].rgb, parts[1].rgb)
        np.testing.assert_array_equal(parts[0].tumor, parts[1].tumor)
        assert (parts[0].rgb != parts[2].rgb).mean() > 0.5

    def test_there_is_tumor_in_part_of_the_tissue_and_glass_around_it(self, overview: SlidePart):
        glass = (np.abs(overview.rgb.astype(int) - GLASS).max(axis=-1) < 6).mean()
        assert 0.05 < glass < 0.7
        assert 0.03 < overview.tumor.mean() < 0.6
        border = np.concatenate([overview.rgb[0], overview.rgb[-1], overview.rgb[:, 0], overview.rgb[:, -1]])
        assert (np.abs(border.astype(int) - GLASS).max(axis=-1) < 6).mean() > 0.9

    def test_nests_are_wide_enough_to_be_outlined(self, overview: SlidePart):
        labels, count = ndimage.label(overview.tumor)
        assert count >= 1
        widest_um = ndimage.maximum(
            2 * 4.0 * ndimage.distance_transform_edt(overview.tumor), labels, range(1, count + 1)
        )
        assert np.median(widest_um) > 30

    def test_a_survey_tells_what_the_drawing_shows(self, slide: DrawnSlide, overview: SlidePart):
        tissue, tumor = slide.survey(4.0)
        assert tumor.shape == tissue.shape == overview.tumor.shape
        assert (tumor == overview.tumor).mean() > 0.995
        stained = np.abs(overview.rgb.astype(int) - GLASS).max(axis=-1) > 12
        assert (tissue == stained).mean() > 0.9
        # What every slide can do gives the same.
        surveyed = Slide.survey(slide, 4.0)
        assert (surveyed[0] == tissue).mean() > 0.9
        np.testing.assert_array_equal(surveyed[1], overview.tumor)

    def test_tumor_is_purple_and_stroma_pink(self, slide: DrawnSlide, overview: SlidePart):
        rgb = overview.rgb.astype(float)
        stained = np.abs(rgb - GLASS).max(axis=-1) > 30
        tumor = ndimage.binary_erosion(overview.tumor, iterations=4)
        stroma = ndimage.binary_dilation(overview.tumor, iterations=6) & ~ndimage.binary_dilation(
            overview.tumor, iterations=2
        )
        redness = [
            (rgb[where & stained][:, 0] - rgb[where & stained][:, 2]).mean() for where in (tumor, stroma)
        ]
        assert redness[0] < 0 < redness[1]

    def test_nuclei_of_tumor_are_larger_and_paler_than_lymphocytes(self, slide: DrawnSlide):
        kinds = {nuclei.kind: nuclei for nuclei in slide.nuclei}
        assert set(kinds) == {"tumor", "lymphocyte", "fibroblast"}
        darkness, area = {}, {}
        for kind in ("tumor", "lymphocyte"):
            crowd = kinds[kind].xy_um
            sizes, values = [], []
            for x, y in crowd[:: max(1, len(crowd) // 40)]:
                rgb = slide.read(x - 8, y - 8, (40, 40), 0.4).rgb.astype(float)
                dark = rgb[..., 0] < 150
                labels, _ = ndimage.label(dark)
                sizes.append((labels == labels[20, 20]).sum() if labels[20, 20] else 0)
                values.append(rgb[18:22, 18:22, 0].mean())
            darkness[kind], area[kind] = np.median(values), np.median(sizes)
        assert darkness["lymphocyte"] < darkness["tumor"] - 15

    def test_a_slide_too_small_for_tissue_is_refused(self):
        with pytest.raises(ValueError, match="200 um"):
            DrawnSlide(0, size_um=(100.0, 100.0))


class TestAssembled:
    def test_the_fields_pixels_and_masks_are_where_they_belong(self, two: AssembledSlide, real_data: Path):
        import imageio.v3

        rgb = imageio.v3.imread(real_data / "he_breast_40x" / "images" / "1008.jpg")
        mask = imageio.v3.imread(real_data / "he_breast_40x" / "masks" / "1008.png")
        part = two.read(100.0 + 50.0, 100.0 + 25.0, (400, 300), 0.25)
        np.testing.assert_array_equal(part.rgb, rgb[100:400, 200:600, :3])
        np.testing.assert_array_equal(part.tumor, mask[100:400, 200:600] > 0)

    def test_a_field_goes_on_as_its_mirror_image(self, two: AssembledSlide):
        # 3584x2560 pixels of 0.25 um; the mirrors stand at 100 um + 896 um and 100 um + 640 um.
        part = two.read(896.0, 640.0, (400, 400), 0.5)
        assert np.abs(part.rgb.astype(int) - part.rgb[:, ::-1]).mean() < 1
        assert np.abs(part.rgb.astype(int) - part.rgb[::-1]).mean() < 1
        np.testing.assert_array_equal(part.tumor, part.tumor[::-1, ::-1])

    def test_fields_have_glass_between_them(self, two: AssembledSlide):
        overview = two.overview(4.0)
        assert 0.1 < overview.tumor.mean() < 0.9
        lines = (overview.rgb == GLASS).all(axis=-1).all(axis=0)
        assert lines[:20].all()
        assert lines[-20:].all()
        assert lines[30:-30].any()

    def test_unknown_fields_are_refused_with_those_there_are(
        self, real_data: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("LINCEI_DATA", str(real_data))
        with pytest.raises(UsageError, match="1008, 1015"):
            AssembledSlide(["he_breast_40x/7"])
        with pytest.raises(UsageError, match=", ".join(FIELD_SETS_UM)):
            AssembledSlide(["he_liver/7"])

    def test_without_data_the_sentence_says_how_to_get_them(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setenv("LINCEI_DATA", str(tmp_path))
        monkeypatch.setattr("sample_data.registry.cache_folder", lambda: tmp_path)
        with pytest.raises(LinceiError, match="LINCEI_DATA"):
            AssembledSlide()


class TestByName:
    def test_a_name_says_which_slide(self):
        slide: Slide = open_slide("drawn:12")
        assert isinstance(slide, DrawnSlide)
        assert slide.name == "drawn slide 12"

    @pytest.mark.parametrize("name", ["painted", "drawn:blue", ""])
    def test_other_names_are_refused_with_what_there_is(self, name: str):
        with pytest.raises(UsageError, match="drawn, drawn:SEED, real"):
            open_slide(name)


class TestCommand:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sample_data.slides", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_it_writes_a_picture_and_the_mask_of_its_tumor(self, tmp_path: Path):
        run = self.run(str(tmp_path / "new"), "--pixel-size-um", "20")
        assert run.returncode == 0, run.stderr
        paths = [Path(line) for line in run.stdout.split()]
        assert [path.name for path in paths] == ["slide.ome.tif", "slide_tumor.ome.tif"]
        picture, mask = (open_image(path) for path in paths)
        assert picture.rgb
        assert picture.pixel_size_um == pytest.approx(20)
        assert picture.shape[3:] == mask.shape[3:] == (280, 400)
        assert set(np.unique(mask.read())) == {0, 255}

    def test_it_says_what_is_wrong(self, tmp_path: Path):
        run = self.run(str(tmp_path), "--slide", "painted")
        assert run.returncode == 2
        assert "painted" in run.stderr
        assert "Traceback" not in run.stderr
