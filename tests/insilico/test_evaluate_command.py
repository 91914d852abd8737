"""``lincei evaluate`` as a biologist meets it: what it prints, what it writes, its exit status."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from tiny_models import TinyModels, gray, stack

from lincei.cli import main
from lincei.errors import LinceiWarning
from lincei.image import Image, save_image
from sample_data.cells import write_fields


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Give three fields with two stains each, as files."""
    random = np.random.default_rng(0)
    for number in range(3):
        image = gray(stack(seed=number), modality="phase contrast")
        save_image(image, tmp_path / f"phase_{number}.ome.tif")
        for name in ("dapi", "map2"):
            values = random.integers(0, 4000, (70, 90)).astype("uint16")
            save_image(Image.from_array(values, axes="YX"), tmp_path / f"{name}_{number}.tif")
    return tmp_path


def run(folder: Path, out: Path, *more: str) -> int:
    words = ["--input", f"{folder}/phase_{{field}}.ome.tif", "--label", f"DAPI={folder}/dapi_{{field}}.tif"]
    return main(["evaluate", "--model", "tiny", *words, "--out", str(out), *more])


def metrics(out: Path) -> dict[str, object]:
    written: dict[str, object] = json.loads((out / "metrics.json").read_text("utf-8"))
    return written


def test_pairs_are_measured_and_the_files_listed(
    tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]
):
    out = fields / "out"
    assert run(fields, out, "--label", f"MAP2={fields}/map2_{{field}}.tif") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == (
        ["images", "pearson_r", "nrmse", "ssim", "psnr", "crps", "coverage_90", "object_f1", "count_error"]
    )
    assert [line.split()[:2] for line in lines[1:3]] == [["DAPI", "3"], ["MAP2", "3"]]
    assert lines[3:] == [str(out / name) for name in ("report.html", "metrics.json", "metrics.csv")]
    assert all(Path(line).is_file() for line in lines[3:])
    assert shown.err.splitlines()[-1] == "3 inputs done."


def test_what_has_no_partner_is_named_and_the_rest_is_measured(
    tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]
):
    (fields / "dapi_1.tif").unlink()
    assert run(fields, fields / "out") == 0
    assert "phase_1" in capsys.readouterr().err
    assert len(metrics(fields / "out")["images"]) == 2  # type: ignore[arg-type]


def test_a_damaged_file_fails_alone(tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]):
    (fields / "dapi_1.tif").write_bytes(b"II*\0 damaged")
    assert run(fields, fields / "out") == 1
    shown = capsys.readouterr()
    assert "2 of 3 inputs done, 1 failed:" in shown.err
    assert "dapi_1.tif" in shown.err
    assert len(metrics(fields / "out")["failures"]) == 1  # type: ignore[arg-type]


def test_where_all_fail_the_reasons_are_listed_and_nothing_is_written(
    tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]
):
    for number in range(3):
        (fields / f"dapi_{number}.tif").write_bytes(b"II*\0 damaged")
    assert run(fields, fields / "out") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "0 of 3 inputs done, 3 failed:" in shown.err
    assert list((fields / "out").iterdir()) == []


def test_of_a_single_pair_the_error_alone_is_said(
    tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]
):
    small = Image.from_array(np.ones((20, 20), np.uint16), axes="YX")
    save_image(small, fields / "small.tif")
    words = ["--input", f"{fields}/phase_0.ome.tif", "--label", f"DAPI={fields}/small.tif"]
    assert main(["evaluate", "--model", "tiny", *words, "--out", str(fields / "out")]) == 1
    shown = capsys.readouterr()
    assert "must lie pixel on pixel" in shown.err
    assert "inputs" not in shown.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--label", "Hoechst={}/map2_{{field}}.tif"), "predicts no label 'Hoechst'"),
        (("--label", "DAPI"), "NAME=PATTERN"),
        (("--nuclear-labels", "MAP2"), "which is not evaluated"),
        (("--label-scaling", "group", "--split-by", "strain"), "no placeholder {strain}"),
        (("--label-scaling", "none"), "--label-scaling"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_is_right(
    tiny: TinyModels,
    fields: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    words: str,
):
    assert run(fields, fields / "out", *(word.format(fields) for word in more)) == 2
    assert words in capsys.readouterr().err
    assert not (fields / "out").exists()


def test_nothing_that_pairs_is_an_error(tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(3):
        (fields / f"dapi_{number}.tif").rename(fields / f"dapi_{number + 10}.tif")
    assert run(fields, fields / "out") == 1
    assert "no input has a label of its own" in capsys.readouterr().err


def test_the_published_names_pair_by_themselves_and_give_the_models_labels(
    tiny: TinyModels, fields: Path, capsys: pytest.CaptureFixture[str]
):
    folder = fields / "published"
    folder.mkdir()
    start = "lab-Rubin,condition-a,acquisition_date,year-2016,month-2,day-6,well-r0c0"
    pixels = (20_000 + 4000 * stack()).astype("uint16")
    for z, plane in enumerate(pixels):
        Picture.fromarray(plane).save(
            folder / f"{start},z_depth-{z},channel-PHASE_CONTRAST,is_mask-false.png"
        )
    for name in ("DAPI", "NFH"):  # the model does not give NFH
        computed = f"{start},depth_computation-MAXPROJECT,channel-{name},is_mask-false.png"
        Picture.fromarray(pixels[0]).save(folder / computed)
    words = ["--model", "tiny", "--input", f"isl:{folder}", "--out", str(fields / "out")]
    assert main(["evaluate", *words]) == 0
    [image] = metrics(fields / "out")["images"]  # type: ignore[misc]
    assert list(image["labels"]) == ["DAPI"]


class TestShippedModels:
    @pytest.fixture(autouse=True)
    def quiet(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinceiWarning)
            yield

    def test_simulated_cells_never_seen_are_counted(self, tmp_path: Path):
        write_fields(tmp_path, 2, seed=3000, size_px=256)
        out = tmp_path / "out"
        words = ["--input", f"{tmp_path}/stack_{{field}}.ome.tif", "--out", str(out)]
        words += ["--label", f"nuclei={tmp_path}/nuclei_{{field}}.ome.tif"]
        assert main(["evaluate", "--model", "simulated-cells", *words]) == 0
        means = metrics(out)["means"]["nuclei"]  # type: ignore[index]
        assert means["pearson_r"] > 0.7
        assert means["object_f1"] > 0.6
        assert 0.8 < means["coverage_90"] < 1

    def test_real_motor_neurons_are_measured_and_said_to_be_known(
        self, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        source = real_data / "isl_motor_neurons"
        labels = [f"{name}={source}/{name.lower()}_confocal_maxproj.tif" for name in ("DAPI", "NFH")]
        words = ["--input", f"{source}/phase_z{{z}}.tif", "--label", labels[0], "--label", labels[1]]
        out = tmp_path / "out"
        assert main(["evaluate", "--model", "motor-neurons", *words, "--out", str(out)]) == 0
        [image] = metrics(out)["images"]  # type: ignore[misc]
        assert image["known_to_model"] is True
        dapi = image["labels"]["DAPI"]
        assert dapi["pearson_r"] > 0.9
        assert 0.85 < dapi["coverage_90"] <= 1
        assert 20 < dapi["nuclei_true"] < 120
        assert dapi["count_error"] < 0.4
        assert dapi["saturated_share"] > 0.001  # the published 8-bit stain is cut at its bright end
        assert "object_f1" not in image["labels"]["NFH"]
        assert "bears the name of a field that the model" in (out / "report.html").read_text("utf-8")
