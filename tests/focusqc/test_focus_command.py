"""``lincei focus`` as a biologist meets it: what it prints, its exit status, and Ctrl-C."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stand_in_models import gray, noise

import focusqc.train_files
from lincei.cli import main
from lincei.image import save_image
from lincei.model import Model


def run(*words: str | Path) -> int:
    """Run the command in this process."""
    return main(["focus", *map(str, words)])


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Give a folder with two images, one of them blurred."""
    for name, blur in (("blurred", 3.0), ("sharp", 0.0)):
        save_image(gray(noise(blur_px=blur), pixel_size_um=0.65), tmp_path / "in" / f"{name}.ome.tif")
    return tmp_path / "in"


@pytest.mark.usefixtures("stand_ins")
class TestGoodInput:
    def test_the_files_made_are_listed_on_stdout_and_the_outcome_on_stderr(
        self, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        out = tmp_path / "out"
        assert run(cells, "--out", out) == 0
        shown = capsys.readouterr()
        names = ("images.csv", "patches.csv", "exclude.csv", "report.html", "overlays")
        assert shown.out.splitlines() == [str(out / name) for name in names]
        assert shown.err.splitlines()[-2:] == [
            "2 inputs done.",
            "In focus: 1, out of focus: 1, uncertain: 0.",
        ]

    def test_the_sharpest_plane_of_a_stack_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        stack = np.stack([noise(blur_px=blur) for blur in (2, 0, 1)])
        source = save_image(gray(stack, axes="ZYX"), tmp_path / "a.ome.tif")
        assert run(source, "--out", tmp_path / "out") == 0
        assert capsys.readouterr().err.endswith("The sharpest plane, counted from 0, is z = 1.\n")

    def test_all_options_reach_the_job(self, tmp_path: Path):
        image = gray(
            np.stack([noise(seed=1), noise(400, 500)[:200, :300]]), axes="CYX", channel_names=("a", "b")
        )
        source = save_image(image.with_(modality="DIC"), tmp_path / "in.ome.tif")
        status = run(
            source,
            *("--out", tmp_path / "out", "--model", "focus-fluorescence", "--channel", "b"),
            *("--modality", "fluorescence", "--pixel-size-um", "0.325", "--na", "1.2"),
            *("--wavelength-um", "0.6", "--refractive-index", "1.33", "--tile-count", "2,1"),
            *("--probabilities", "--no-overlays", "--engine", "onnxruntime", "--threads", "1"),
        )  # fmt: skip
        assert status == 0
        patches = pd.read_csv(tmp_path / "out" / "patches.csv")
        assert list(patches["channel"]) == ["b", "b"]
        assert set(patches["width"]) == {168}
        assert (patches["defocus_um"] >= 0).all()
        assert (tmp_path / "out" / "probabilities" / "in.tif").exists()
        assert not (tmp_path / "out" / "overlays").exists()

    def test_it_imports_no_tensorflow(self, cells: Path, tmp_path: Path):
        words = ["focus", str(cells), "--out", str(tmp_path / "out")]
        code = (
            "import sys\nfrom lincei.cli import main\n"
            f"status = main({words!r})\n"
            "assert not {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)\n"
            "sys.exit(status)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_both_commands_are_listed_in_the_help(self, capsys: pytest.CaptureFixture[str]):
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        assert "  focus " in shown
        assert "  train-focus " in shown


def test_after_training_the_command_to_use_the_model_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stand_ins: Path
):
    model = Model.from_folder(stand_ins / "focus-fluorescence")
    monkeypatch.setattr(focusqc.train_files, "train_files", lambda *a, **k: model)
    out = str(tmp_path / "my models" / "it's mine")
    assert main(["train-focus", "--input", "*.tif", "--out", out]) == 0
    command = capsys.readouterr().out.splitlines()[-1].partition("Use it with: ")[2]
    assert shlex.split(command) == ["lincei", "focus", "INPUT", "--model", out, "--out", "DIR"]


@pytest.mark.usefixtures("stand_ins")
class TestBadInput:
    def test_a_single_image_that_cannot_be_rated_is_one_sentence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        source = save_image(gray(noise(), modality="phase contrast"), tmp_path / "a.ome.tif")
        assert run(source, "--out", tmp_path / "out") == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert list((tmp_path / "out").iterdir()) == []
        (line,) = shown.err.splitlines()
        assert line.startswith(
            f"error: {source}: this is a phase contrast image, and no model rates its focus"
        )

    def test_a_broken_file_among_others_is_listed_last_and_the_status_is_1(
        self, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        (cells / "broken.tif").write_bytes(b"II*\0")
        assert run(cells, "--out", tmp_path / "out") == 1
        shown = capsys.readouterr()
        assert "2 of 3 inputs done, 1 failed:" in shown.err
        assert "broken.tif" in shown.err
        assert str(tmp_path / "out" / "images.csv") in shown.out

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--tile-count", "3"], "--tile-count is 3"),
            (["--na", "1.3"], "--na is 1.3, above the refractive index"),
            (["--pixel-size-um", "0"], "must be above 0"),
            (["--no-such-option"], "No such option"),
        ],
    )
    def test_wrong_usage_is_explained_and_the_status_is_2(
        self, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
    ):
        assert run(cells, "--out", tmp_path / "out", *words) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent differently there")
    def test_ctrl_c_keeps_what_is_done_and_the_status_is_130(self, tmp_path: Path):
        first = save_image(gray(noise(800, 800)), tmp_path / "in" / "000.tif")
        for i in range(1, 150):
            shutil.copyfile(first, first.with_name(f"{i:03d}.tif"))
        out = tmp_path / "out"
        command = [sys.executable, "-m", "lincei", "focus", str(tmp_path / "in"), "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                unfinished = list(out.glob(".images.csv.*"))
                if unfinished and len(unfinished[0].read_text("utf-8").splitlines()) > 3:
                    break
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, shown = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, shown
        assert "not done because you stopped it" in shown
        rated = pd.read_csv(out / "images.csv")["file"]
        assert 3 <= len(rated) < 150
        assert list(rated) == [f"{i:03d}.tif" for i in range(len(rated))]
        assert sorted(path.stem for path in (out / "overlays").iterdir()) == [name[:3] for name in rated]
