"""``lincei label`` as a biologist meets it: what it prints, its exit status, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiny_models import TinyModels, gray, stack

from insilico import label
from lincei.cli import main
from lincei.errors import LinceiWarning
from lincei.image import Image, open_image, save_image


def lincei(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as ``python -m lincei``."""
    return subprocess.run(
        [sys.executable, "-m", "lincei", *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def run(*words: str | Path) -> int:
    """Run the command in this process; the tiny model goes first unless another is named."""
    named = () if "--model" in words else ("--model", "tiny")
    return main(["label", *map(str, words), *named])


def files_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder, hidden leftovers included; none where it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Give a stack as OME-TIFF."""
    return save_image(gray(stack(), modality="phase contrast"), tmp_path / "in" / "cells.ome.tif")


class TestGoodInput:
    def test_the_files_made_are_listed_on_stdout_and_the_outcome_on_stderr(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        out = tmp_path / "out"
        assert run(cells, "--out", out) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines() == [str(out / "cells.ome.tif"), str(out / "cells.sd.ome.tif")]
        assert shown.err.splitlines()[-1] == "1 input done."
        assert files_in(out) == ["cells.ome.tif", "cells.sd.ome.tif"]

    def test_all_options_reach_the_job(self, tiny: TinyModels, tmp_path: Path):
        pixels = np.stack([stack(seed=1), stack(seed=2)])
        image = Image.from_array(
            (20_000 + 4000 * pixels).astype("uint16"), "CZYX", channel_names=("one", "two"), modality="DIC"
        )
        source = save_image(image, tmp_path / "in.ome.tif")
        status = run(
            source,
            *("--out", tmp_path / "out", "--model", "tiny-scaled,tiny-one", "--labels", "MAP2,DAPI"),
            *("--statistics", "median,entropy", "--pixel-size-um", "0.4", "--z-step-um", "1.5"),
            *("--modality", "phase contrast", "--channel", "two", "--engine", "onnxruntime"),
            *("--tile-px", "40", "--threads", "1"),
        )  # fmt: skip
        assert status == 0
        assert files_in(tmp_path / "out") == ["in.entropy.ome.tif", "in.median.ome.tif"]
        result = open_image(tmp_path / "out" / "in.median.ome.tif")
        assert result.provenance is not None
        assert result.provenance["parameters"] == {
            "model": ["tiny-scaled", "tiny-one"],
            "labels": ["MAP2", "DAPI"],
            "statistics": ["median", "entropy"],
            "pixel_size_um": 0.4,
            "z_step_um": 1.5,
            "modality": "phase contrast",
            "channel": "two",
            "engine": "onnxruntime",
            "tile_px": 40,
            "threads": 1,
        }
        assert result.pixel_size_um == 0.4

    def test_it_runs_as_a_module_and_imports_no_tensorflow(
        self, tiny: TinyModels, cells: Path, tmp_path: Path
    ):
        words = ["label", str(cells), "--out", str(tmp_path / "out"), "--model", "tiny"]
        code = (
            "import sys\nfrom lincei.cli import main\n"
            f"status = main({words!r})\n"
            "assert not {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)\n"
            "sys.exit(status)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        again = lincei(*words)
        assert again.returncode == 0, again.stderr
        assert again.stdout == done.stdout
        assert lincei("--version").stdout.startswith("lincei ")

    def test_a_real_stack_of_13_planes_goes_through(
        self, tiny: TinyModels, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        pattern = real_data / "isl_motor_neurons" / "phase_z{z}.tif"
        assert run(pattern, "--out", tmp_path, "--statistics", "mean,q05,q95", "--tile-px", "256") == 0
        assert files_in(tmp_path) == ["phase.ome.tif", "phase.q05.ome.tif", "phase.q95.ome.tif"]
        low, mean, high = (open_image(tmp_path / f"phase{name}.ome.tif") for name in (".q05", "", ".q95"))
        assert mean.shape == (1, 2, 1, 1024, 704)
        assert mean.read().std() > 0.1
        assert (low.read() < high.read()).all()
        from lincei.pattern import find_inputs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinceiWarning)  # of drift, which the command prints
            whole = label(find_inputs([str(pattern)])[0].open(), "tiny", tile_px=1024)["mean"]
        assert abs(whole.read() - mean.read()).max() < 1e-5
        assert mean.provenance is not None
        assert mean.provenance["source"] == str(pattern)
        assert "the z planes are shifted sideways by" in capsys.readouterr().err

    def test_the_real_stacks_planes_one_by_one_are_a_batch(
        self, tiny: TinyModels, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        pattern = real_data / "isl_motor_neurons" / "phase_z1*.tif"
        assert run(pattern, "--out", tmp_path, "--statistics", "mean", "--model", "tiny-one") == 0
        assert files_in(tmp_path) == ["phase_z10.ome.tif", "phase_z11.ome.tif", "phase_z12.ome.tif"]
        assert "3 inputs done." in capsys.readouterr().err

    @pytest.mark.parametrize("subset", [["00"], ["05", "06"], ["00", "06", "12"]])
    def test_some_of_the_real_planes_will_do(
        self, tiny: TinyModels, real_data: Path, tmp_path: Path, subset: list[str]
    ):
        for z in subset:
            plane = tifffile.imread(real_data / "isl_motor_neurons" / f"phase_z{z}.tif")
            tifffile.imwrite(tmp_path / f"phase_z{z}.tif", plane[:128, :160])
        assert run(tmp_path / "phase_z{z}.tif", "--out", tmp_path / "out", "--statistics", "mean") == 0
        assert open_image(tmp_path / "out" / "phase.ome.tif").shape == (1, 2, 1, 128, 160)


def empty(path: Path) -> Path:
    path = path / "empty.tif"
    path.write_bytes(b"")
    return path


def truncated(path: Path) -> Path:
    path = path / "truncated.tif"
    tifffile.imwrite(path, gray(stack()).read()[0, 0], photometric="minisblack")
    path.write_bytes(path.read_bytes()[:20_000])
    return path


def text(path: Path) -> Path:
    path = path / "text.tif"
    path.write_text("Dear diary, today I imaged cells.", encoding="utf-8")
    return path


def rgb(path: Path) -> Path:
    path = path / "rgb.png"
    values = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype("uint8")
    import imageio.v3 as imageio

    imageio.imwrite(path, values)
    return path


def nan(path: Path) -> Path:
    values = stack().astype("float32")
    values[1, 20, 30] = np.nan
    return save_image(Image.from_array(values, "ZYX"), path / "nan.ome.tif")


def infinite(path: Path) -> Path:
    values = stack().astype("float32")
    values[0, 0, 0] = np.inf
    return save_image(Image.from_array(values, "ZYX"), path / "infinite.ome.zarr")


def constant(path: Path) -> Path:
    path = path / "constant.tif"
    tifffile.imwrite(path, np.full((50, 50), 9, "uint8"))
    return path


def few_pixels(path: Path) -> Path:
    path = path / "few.tif"
    tifffile.imwrite(path, gray(stack(1, 9, 50)).read()[0, 0, 0])
    return path


def other_modality(path: Path) -> Path:
    return save_image(gray(stack(), modality="bright field"), path / "other.ome.tif")


def two_channels(path: Path) -> Path:
    values = (20_000 + 4000 * np.stack([stack(), stack()])).astype("uint16")
    return save_image(Image.from_array(values, "CZYX"), path / "channels.ome.tif")


def missing_plane(path: Path) -> Path:
    for z in (0, 1, 3):
        tifffile.imwrite(path / f"gap_z{z}.tif", gray(stack(1, seed=z)).read()[0, 0, 0])
    return path / "gap_z{z}.tif"


def planes_of_other_sizes(path: Path) -> Path:
    for z, width in enumerate((90, 91)):
        tifffile.imwrite(path / f"sizes_z{z}.tif", gray(stack(1, 70, width)).read()[0, 0, 0])
    return path / "sizes_z{z}.tif"


def not_there(path: Path) -> Path:
    return path / "quux0123.tif"


BAD: list[tuple[Callable[[Path], Path], str, str]] = [
    (empty, "empty.tif: the file is empty", "Copy it again"),
    (truncated, "truncated.tif: ", "again"),
    (text, "text.tif: the file is named .tif but holds text", "Copy it again"),
    (rgb, "rgb.png: this is a color (RGB) image, and a gray", "as gray"),
    (nan, "nan.ome.tif: channel 0 has pixels that are no numbers", "Replace them"),
    (infinite, "infinite.ome.zarr: channel 0 has pixels that are no numbers", "Replace them"),
    (constant, "constant.tif: channel 0 has (nearly) the same value everywhere", "shutter"),
    (few_pixels, "few.tif: the image has too few pixels (9 x 50)", "16 pixels or more"),
    (other_modality, "other.ome.tif: this is a bright field image", "--modality 'phase contrast'"),
    (two_channels, "channels.ome.tif: it has 2 channels", "--channel"),
    (missing_plane, "gap_z{z}.tif: a file is missing: there is none for z = 2", "Add it"),
    (planes_of_other_sizes, "sizes_z1.tif: its size along X is 91, and 90 in sizes_z0.tif", "one size"),
    (not_there, "quux0123.tif: there is no such file", "Check the path"),
]
NAMES = [make.__name__ for make, _, _ in BAD]


class TestBadInput:
    """Each gives one sentence that says what, where and what to do, and exit status 1."""

    @pytest.mark.parametrize(("make", "what", "to_do"), BAD, ids=NAMES)
    def test_alone(
        self,
        tiny: TinyModels,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        make: Callable[[Path], Path],
        what: str,
        to_do: str,
    ):
        assert run(make(tmp_path), "--out", tmp_path / "out") == 1
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert what in lines[0]
        assert to_do in lines[0]
        assert shown.out == ""
        assert files_in(tmp_path / "out") == []

    def test_together_with_good_input_they_are_listed_at_the_end(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        out = tmp_path / "out"
        inputs = [make(tmp_path) for make, _, _ in BAD]
        last = save_image(gray(stack()), tmp_path / "last.ome.tif")
        assert run(*inputs[:6], cells, *inputs[6:], last, "--out", out, "--statistics", "mean") == 1
        assert files_in(out) == ["cells.ome.tif", "last.ome.tif"]
        shown = capsys.readouterr()
        assert shown.out.splitlines() == [str(out / "cells.ome.tif"), str(out / "last.ome.tif")]
        lines = shown.err.splitlines()[-len(BAD) - 1 :]
        assert lines[0] == f"2 of {len(BAD) + 2} inputs done, {len(BAD)} failed:"
        for line, (_, what, to_do) in zip(lines[1:], BAD, strict=True):
            assert what in line
            assert to_do in line
        assert "Traceback" not in shown.err

    @pytest.mark.parametrize("make", [empty, truncated, nan, missing_plane, rgb])
    def test_the_command_itself_says_nothing_else(
        self, tiny: TinyModels, tmp_path: Path, make: Callable[[Path], Path]
    ):
        done = lincei("label", make(tmp_path), "--model", "tiny", "--out", tmp_path / "out")
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")

    def test_equal_stems_are_refused_before_work(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        other = save_image(gray(stack()), tmp_path / "other" / "cells.tif")
        assert run(cells, other, "--out", tmp_path / "out") == 1
        error = capsys.readouterr().err
        assert "the same name, 'cells'" in error
        assert "Rename one" in error
        assert not (tmp_path / "out").exists()

    def test_a_folder_without_permission(
        self,
        tiny: TinyModels,
        cells: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ):
        def denied(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:  # a superuser may write where permissions say no
            patch.setattr(tempfile, "TemporaryFile", denied)
            status = run(cells, "--out", tmp_path / "out")
        assert status == 1
        assert "out: there is no permission to write there. Choose another" in capsys.readouterr().err

    @pytest.mark.skipif(sys.platform == "win32", reason="permissions are kept otherwise there")
    def test_a_real_folder_without_permission(self, tiny: TinyModels, cells: Path, tmp_path: Path):
        if os.geteuid() == 0:
            pytest.skip("a superuser may write anywhere")
        out = tmp_path / "out"
        out.mkdir(mode=0o555)
        done = lincei("label", cells, "--model", "tiny", "--out", out)
        assert done.returncode == 1
        assert "there is no permission to write there" in done.stderr

    def test_a_full_disk(
        self,
        tiny: TinyModels,
        cells: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ):
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        other = save_image(gray(stack()), tmp_path / "other.ome.tif")
        with monkeypatch.context() as patch:
            patch.setattr(tifffile.TiffWriter, "write", full)
            statuses = [run(cells, *more, "--out", tmp_path / "out") for more in ([], [other])]
        assert statuses == [1, 1]
        lines = capsys.readouterr().err.splitlines()
        said = [line for line in lines if "no space is left on the disk. Free some." in line]
        assert len(said) == 2
        assert "0 of 2 inputs done, 1 failed, 1 not done because the disk is full:" in lines
        assert files_in(tmp_path / "out") == []

    def test_a_missing_pixel_size_is_said_once(
        self, tiny: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        inputs = [save_image(gray(stack(seed=i)), tmp_path / f"{i}.ome.tif") for i in range(3)]
        assert run(*inputs, "--out", tmp_path / "out", "--model", "tiny-scaled") == 0
        error = capsys.readouterr().err
        assert error.count("warning: the pixel size and the z step of the input is not known") == 1


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--statistics", "mean,variance"], "--statistics is 'variance'"),
            (["--statistics", ","], "no statistic is named"),
            (["--labels", "NFH"], "there is no label 'NFH'"),
            (["--model", ","], "no model is named"),
            (["--pixel-size-um", "0"], "--pixel-size-um is 0"),
            (["--pixel-size-um", "small"], "--pixel-size-um"),
            (["--modality", "fluorescence"], "--modality"),
            (["--channel", "9"], "there is no channel '9'"),
            (["--tile-px", "3"], "--tile-px is 3"),
            (["--engine", "abacus"], "--engine"),
            (["--statistic", "mean"], "--statistic"),
        ],
    )
    def test_it_exits_with_2_and_says_which_option(
        self,
        tiny: TinyModels,
        cells: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        said: str,
    ):
        assert run(cells, "--out", tmp_path / "out", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert files_in(tmp_path / "out") == []

    def test_so_do_a_missing_input_and_a_missing_folder(
        self, tiny: TinyModels, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert run("--out", tmp_path / "out") == 2
        assert "inputs" in capsys.readouterr().err
        assert run(cells) == 2
        assert "--out" in capsys.readouterr().err

    def test_a_pattern_with_an_unknown_placeholder(
        self, tiny: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert run(tmp_path / "a_{depth}.tif", "--out", tmp_path / "out") == 2
        assert "{depth}" in capsys.readouterr().err

    def test_help_tells_what_comes_out(self, capsys: pytest.CaptureFixture[str]):
        assert main(["label", "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for words in (
            "Predict fluorescence",
            "Research use only",
            "OUT/<name>.ome.tif",
            "'phase_z{z}.tif'",
            "mean|median|mode|sd|q05|q95|entropy",
        ):
            assert words in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent to a process otherwise there")
class TestInterrupted:
    @pytest.mark.parametrize("kind", [".tif", ".ome.zarr"])
    def test_ctrl_c_leaves_no_half_written_file_and_exits_with_130(
        self, tiny: TinyModels, tmp_path: Path, kind: str
    ):
        # Tiles of 16 pixels: minutes of work, most of it halos.
        source = save_image(gray(stack(2, 1600, 1600)), tmp_path / f"large{kind}")
        out = tmp_path / "out"
        before = save_image(gray(stack(1)), out / f"large.ome{'.zarr' if kind == '.ome.zarr' else '.tif'}")
        kept = open_image(before).read()
        words = ["label", str(source), "--model", "tiny", "--out", str(out), "--tile-px", "16"]
        said = tmp_path / "stderr.txt"
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "lincei", *words], stderr=stderr, stdout=subprocess.PIPE
            )
            try:
                limit = time.monotonic() + 60
                # Said right before the tiles; the Zarr is then begun.
                while b"shifted sideways" not in said.read_bytes() or (
                    kind == ".ome.zarr" and not list(out.glob(".*.part"))
                ):
                    assert process.poll() is None, said.read_bytes()
                    assert time.monotonic() < limit
                    time.sleep(0.05)
                process.send_signal(signal.SIGINT)
                shown, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        lines = said.read_text("utf-8")
        assert process.returncode == 130, lines
        assert shown == b""
        assert "Traceback" not in lines
        assert "stopped before the end." in lines
        assert files_in(out) == [before.name]
        np.testing.assert_array_equal(open_image(before).read(), kept)


def test_the_provenance_in_a_tiff_is_readable_by_any_program(tiny: TinyModels, cells: Path, tmp_path: Path):
    assert run(cells, "--out", tmp_path / "out") == 0
    with tifffile.TiffFile(tmp_path / "out" / "cells.ome.tif") as tif:
        described = tif.ome_metadata
    assert described is not None
    for words in ("predicted", tiny.three.hash, "not measured", "cells.ome.tif"):
        assert words in described
    told = open_image(tmp_path / "out" / "cells.ome.tif").provenance
    assert json.loads(json.dumps(told)) == told
