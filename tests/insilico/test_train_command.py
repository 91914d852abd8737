"""``lincei train`` as a person types it, on real and on simulated images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as Picture

from lincei.cli import main
from lincei.image import open_image
from lincei.model import Model, find_model
from sample_data.cells import write_fields

pytest.importorskip("keras", reason="Keras is not installed: pip install 'lincei[train]'")

QUICK = ["--start-from", "scratch", "--width", "8", "--scales", "2", "--components", "2", "--crop-px", "32"]


@pytest.fixture(scope="module")
def fields(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    write_fields(folder, 3, size_px=96, planes=3)
    return folder


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    pair = [
        "--input",
        f"{folder}/stack_{{field}}.ome.tif",
        "--label",
        f"nuclei={folder}/nuclei_{{field}}.ome.tif",
    ]
    return ["train", *pair, "--out", str(out), *QUICK, *more]


def test_pairs_by_placeholder_become_a_model_that_labels_at_once(fields, tmp_path, capsys):
    out = tmp_path / "from-command"
    assert main(arguments(fields, out, "--max-minutes", "0.1", "--refit")) == 0
    printed = capsys.readouterr()
    assert "Pearson r" in printed.out
    assert "epoch 1, " in printed.err
    model = Model.from_folder(out)
    assert model.card.pixel_size_um == 0.65
    assert model.card.modality == "phase contrast"
    assert "refit" in model.card.figures
    assert main(["label", str(fields / "stack_00.ome.tif"), "--model", str(out), "--out", str(tmp_path)]) == 0
    assert open_image(tmp_path / "stack_00.ome.tif").channel_names == ("nuclei",)


def test_one_real_phase_contrast_image_and_its_stain_are_enough(real_data, tmp_path, capsys):
    folder = real_data / "ecoli_phase_yfp"
    out = tmp_path / "ecoli-one"
    pair = ["--input", f"{folder}/O3_R22_phase_pos_02.tif", "--label", f"YFP={folder}/O3_R22_yfp_pos_02.tif"]
    options = [*QUICK, "--crop-px", "96", "--learning-rate", "0.003", "--max-minutes", "0.7"]
    status = main(["train", *pair, "--out", str(out), *options])
    assert status == 0
    figures = Model.from_folder(out).card.figures
    assert "strips of one field" in figures["split"]
    assert figures["test"]["YFP"]["pearson_r"] > 0.3


def test_the_published_names_are_enough_to_train_from(tmp_path):
    """The file names of the published in silico labeling data name the labels themselves."""
    source = tmp_path / "named"
    write_fields(tmp_path / "plain", 3, size_px=96, planes=2)
    source.mkdir()
    for number in range(3):
        start = f"lab-Rubin,condition-a,acquisition_date,year-2016,month-2,day-6,well-r0c{number}"
        stack = open_image(tmp_path / "plain" / f"stack_{number:02d}.ome.tif").read()[0, 0]
        nuclei = open_image(tmp_path / "plain" / f"nuclei_{number:02d}.ome.tif").read()[0, 0, 0]
        for z, plane in enumerate(stack):
            Picture.fromarray(plane).save(
                source / f"{start},z_depth-{z},channel-PHASE_CONTRAST,is_mask-false.png"
            )
        Picture.fromarray(nuclei).save(
            source / f"{start},z_depth-MAXPROJECT,channel-DAPI_CONFOCAL,is_mask-false.png"
        )
    out = tmp_path / "published"
    assert (
        main(["train", "--input", f"isl:{source}", "--out", str(out), *QUICK, "--max-minutes", "0.05"]) == 0
    )
    assert [label.name for label in Model.from_folder(out).card.labels] == ["DAPI_CONFOCAL"]


def test_a_new_label_starts_from_a_model_that_is_there(fields, tmp_path):
    pair = ["--input", f"{fields}/stack_{{field}}.ome.tif"]
    label = ["--label", f"body={fields}/cytoplasm_{{field}}.ome.tif"]
    out = tmp_path / "new-label"
    start = ["--start-from", "simulated-cells", "--crop-px", "64", "--max-minutes", "0.1"]
    assert main(["train", *pair, *label, "--out", str(out), *start]) == 0
    model = Model.from_folder(out)
    assert [item.name for item in model.card.labels] == ["body"]
    assert model.card.training["start_from"] == "simulated-cells"
    # The network is the start model's, for as many planes as the images have.
    assert model.network()["config"]["width"] == find_model("simulated-cells").network()["config"]["width"]
    assert model.card.z_planes == 3


def test_what_does_not_pair_is_said_and_the_rest_is_used(fields, tmp_path, capsys):
    folder = tmp_path / "some"
    write_fields(folder, 4, size_px=96, planes=3)
    (folder / "nuclei_02.ome.tif").unlink()
    assert main(arguments(folder, tmp_path / "m", "--max-minutes", "0.05")) == 0
    assert "stack_02.ome.tif: there is no nuclei for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--max-minutes", "0"], "--max-minutes is 0"),
        (["--crop-px", "33"], "--crop-px is 33"),
        (["--bright-percentile", "0.5"], "is not below --bright-percentile"),
        (["--label", "nuclei=b.tif"], "given twice"),
        (
            ["--start-from", "joint"],
            "--width cannot be chosen for a network that starts from the model 'joint'",
        ),
        (["--split-by", "well"], "no placeholder {well} to split by"),
        (["--test-on", "stack_99"], "nothing is called 'stack_99'"),
        (["--label-scaling", "none"], "--label-scaling is 'none'"),
        (["--sets", "sets.toml"], "--sets is given together with --input"),
    ],
)
def test_wrong_usage_is_a_sentence_and_status_2(fields, tmp_path, capsys, more, sentence):
    assert main(arguments(fields, tmp_path / "m", *more)) == 2
    assert sentence in capsys.readouterr().err


def test_a_label_without_a_name_is_wrong_usage(tmp_path, capsys):
    words = ["train", "--input", "a.tif", "--label", "b.tif", "--out", str(tmp_path / "m")]
    assert main(words) == 2
    assert "NAME=PATTERN" in capsys.readouterr().err


def test_a_pattern_without_files_fails_with_status_1(tmp_path, capsys):
    words = [
        "train",
        "--input",
        f"{tmp_path}/*.tif",
        "--label",
        f"a={tmp_path}/*.tif",
        "--out",
        str(tmp_path / "m"),
    ]
    assert main(words) == 1
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a single process")
def test_ctrl_c_keeps_the_state_and_resume_goes_on(fields, tmp_path):
    out = tmp_path / "stopped"
    words = [sys.executable, "-m", "lincei", *arguments(fields, out, "--max-minutes", "0.6")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    state = tmp_path / "stopped.training"
    deadline = time.monotonic() + 120
    while not any(state.glob("*.npz")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume to go on" in error
    assert not out.exists()
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "epoch 1," not in done.stderr
    assert Model.from_folder(out).card.finished
    assert not state.exists()
