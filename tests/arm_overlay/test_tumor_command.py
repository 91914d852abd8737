"""``lincei tumor`` as a pathologist meets it: what it prints and its exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_sections import section
from tiny_tumor_models import write_tiny_model

from lincei.cli import main
from lincei.image import save_image


def run(*words: str | Path) -> int:
    """Run the command in this process."""
    return main(["tumor", *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny").folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return save_image(section((200, 260), ((90, 90, 50),)), tmp_path / "in" / "slide.ome.tif")


def test_the_files_made_are_listed_on_stdout_and_the_outcome_on_stderr(
    slide: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(slide, "--model", model, "--out", out) == 0
    shown = capsys.readouterr()
    names = ("tumor.csv", "slide.probability.tif", "slide.geojson", "slide.roi.zip", "slide.outline.png")
    assert shown.out.splitlines() == [str(out / name) for name in names]
    assert shown.err.splitlines()[-1] == "1 input done."


def test_all_options_reach_the_job(slide: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status = run(
        slide,
        *("--model", model, "--out", out, "--pixel-size-um", "0.5", "--threshold", "0.7"),
        *("--smallest-um", "60", "--engine", "onnxruntime", "--threads", "1"),
    )
    assert status == 0
    header, row = (out / "tumor.csv").read_text("utf-8").splitlines()
    told = dict(zip(header.split(","), row.split(","), strict=True))
    # The disk is 50 um wide at this pixel size.
    assert (told["pixel_size_um"], told["threshold"], told["regions"]) == ("0.5", "0.7", "0")


def test_it_imports_neither_tensorflow_nor_qt(slide: Path, model: Path, tmp_path: Path) -> None:
    words = ["tumor", str(slide), "--model", str(model), "--out", str(tmp_path / "out")]
    code = (
        "import sys\nfrom lincei.cli import main\n"
        f"status = main({words!r})\n"
        "assert not {'tensorflow', 'keras', 'torch', 'jax', 'PySide6'} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_pixel_size_is_one_line_and_it_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = section((200, 260), ((90, 90, 50),), pixel_size_um=None)
    source = save_image(image, tmp_path / "a.ome.tif")
    assert run(source, "--model", model, "--out", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "pixel size" in line]
    assert len(lines) == 1
    assert "--pixel-size-um" in lines[0]


def test_a_single_image_that_cannot_be_outlined_is_one_sentence(
    slide: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = section((200, 260), ((90, 90, 50),))
    gray = save_image(image.with_(data=image.read()[:, :1], rgb=False), tmp_path / "gray.ome.tif")
    assert run(gray, "--model", model, "--out", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert not (tmp_path / "out").exists()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"error: {gray}: it is gray")


def test_a_broken_file_among_others_is_listed_last_and_the_status_is_1(
    slide: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slide.parent / "broken.tif").write_bytes(b"II*\0")
    assert run(slide.parent, "--model", model, "--out", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert "1 of 2 inputs done, 1 failed:" in shown.err
    assert "broken.tif" in shown.err.splitlines()[-1]
    assert str(tmp_path / "out" / "tumor.csv") in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pixel-size-um", "0"], "must be above 0"),
        (["--threshold", "1.5"], "must be at most 1"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_wrong_option_ends_with_2_and_says_what_is_allowed(
    slide: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(slide, "--model", model, "--out", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err


def test_the_help_says_what_is_written_and_for_what_it_may_be_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for expected in ("Research use only", "tumor.csv", "--pixel-size-um", "--model", ".geojson"):
        assert expected in shown
