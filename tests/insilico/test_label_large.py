"""What labeling promises of images larger than memory: a run that was stopped goes on, memory stays flat."""

from __future__ import annotations

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tiny_models import TinyModels, gray, stack

import insilico.label_files
import lincei
from insilico import LabelOptions
from insilico.label_files import label_files
from insilico.label_journal import JOURNAL, LabelJournal
from lincei.batch import BatchSummary
from lincei.engine import Engine
from lincei.errors import LinceiError, LinceiWarning
from lincei.formats.scratch import ScratchArray
from lincei.image import open_image, remove, save_image
from lincei.progress import Progress

PIECES = 20
KINDS = pytest.mark.parametrize("kind", ["tiff", "zarr"])
STATISTICS = ("mean", "q95")

# The command, slowed down so that it can be met at work, with no result small enough for memory.
COMMAND = """
import sys, time
import insilico.label_files
from lincei.cli import main
from lincei.engine import OpenVINOEngine

run = OpenVINOEngine._run

def slowly(self, stack):
    time.sleep(0.03)
    return run(self, stack)

OpenVINOEngine._run = slowly
insilico.label_files.IN_MEMORY_BYTES = 0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insilico.label_files, "IN_MEMORY_BYTES", 0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give an image of 10 x 2 pieces of 64 x 48 pixels, whose result as OME-Zarr has a pyramid."""
    folder = tmp_path_factory.mktemp("large")
    image = gray(stack(3, 640, 90), pixel_size_um=0.325, z_step_um=2.0, modality="phase contrast")
    return {
        "tiff": save_image(image, folder / "cells.ome.tif"),
        "zarr": save_image(image, folder / "cells.ome.zarr"),
    }


def options(**fields: Any) -> LabelOptions:
    return LabelOptions(**{"model": ("tiny",), "statistics": STATISTICS, "tile_px": 64, **fields})


def run(source: Path, out: Path, **fields: Any) -> BatchSummary[list[Path]]:
    """Label and expect no warning but those that are asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return label_files([str(source)], out, options(**fields))


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones included."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


_undisturbed: dict[Path, dict[str, bytes]] = {}


def undisturbed(source: Path, folder: Path) -> dict[str, bytes]:
    """Return the files that a run which nothing stops gives; each input is run once."""
    if source not in _undisturbed:
        run(source, folder / "undisturbed")
        _undisturbed[source] = tree(folder / "undisturbed")
    return _undisturbed[source]


def journal_lines(out: Path) -> int:
    """Return how many pieces the journal of the unfinished results has; -1 when there is none."""
    path = out / ".cells.part" / JOURNAL
    return path.read_bytes().count(b"\n") - 1 if path.exists() else -1


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the runs of the network."""
    runs: list[int] = []
    real = Engine.run

    def counted(self: Engine, array: Any) -> Any:
        runs.append(1)
        return real(self, array)

    monkeypatch.setattr(Engine, "run", counted)
    return runs


class Stop:
    """Stops a run when so many pieces are computed, or at a stage after that."""

    def __init__(self, pieces: int = 0, stage: str = "") -> None:
        self.pieces, self.stage = pieces, stage
        self.now = False

    def progress(self, update: Progress) -> None:
        if self.stage:
            self.now |= update.stage == self.stage
        elif update.stage == "labeling":
            self.pieces -= 1
            self.now |= self.pieces <= 0


def stopped(source: Path, out: Path, stop: Stop, **fields: Any) -> BatchSummary[list[Path]]:
    return label_files(
        [str(source)], out, options(**fields), progress=stop.progress, cancelled=lambda: stop.now
    )


@KINDS
class TestStopped:
    @pytest.mark.parametrize("pieces", [1, 7, 19])
    def test_it_goes_on_where_it_was_and_gives_the_same(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        pieces: int,
        computed: Any,
    ):
        whole = undisturbed(sources[kind], tmp_path)
        summary = stopped(sources[kind], tmp_path / "out", Stop(pieces))
        assert summary.exit_code == 130
        assert summary.sentence().splitlines()[-1] == (
            "What is computed of cells is kept: the same command with --resume goes on."
        )
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".cells.part"]
        assert journal_lines(tmp_path / "out") == pieces
        computed.clear()
        summary = run(sources[kind], tmp_path / "out", resume=True)
        assert len(computed) == PIECES - pieces
        assert summary.sentence() == "1 input done."
        assert tree(tmp_path / "out") == whole

    def test_also_while_it_is_saved(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str, computed: Any
    ):
        whole = undisturbed(sources[kind], tmp_path)
        stage = {"tiff": "saving", "zarr": "building the pyramid"}[kind]
        assert stopped(sources[kind], tmp_path / "out", Stop(stage=stage)).exit_code == 130
        computed.clear()
        run(sources[kind], tmp_path / "out", resume=True)
        assert not computed
        assert tree(tmp_path / "out") == whole

    def test_resampled_several_models_and_times(
        self, tiny: TinyModels, tmp_path: Path, kind: str, computed: Any
    ):
        pixels = (20_000 + 4000 * np.stack([stack(3, 120, 90, seed) for seed in range(2)])).astype("uint16")
        movie = lincei.image.Image.from_array(pixels, "TZYX", pixel_size_um=0.4, z_step_um=2.0)
        source = save_image(movie, tmp_path / f"cells.ome.{kind if kind == 'zarr' else 'tif'}")
        several: dict[str, Any] = {"model": ("tiny", "tiny-scaled"), "tile_px": 48}
        run(source, tmp_path / "whole", **several)
        total = len(computed)
        for pieces in (total // 3, total // 2):  # within the first model, and within the second
            stopped(source, tmp_path / "out", Stop(pieces), resume=True, **several)
        computed.clear()
        run(source, tmp_path / "out", resume=True, **several)
        assert len(computed) == total - total // 3 - total // 2
        assert tree(tmp_path / "out") == tree(tmp_path / "whole")

    def test_without_resume_it_is_begun_anew(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str, computed: Any
    ):
        stopped(sources[kind], tmp_path / "out", Stop(9))
        computed.clear()
        run(sources[kind], tmp_path / "out")
        assert len(computed) == PIECES
        assert not [name for name in tree(tmp_path / "out") if name.startswith(".")]

    def test_a_full_disk_loses_nothing(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        computed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ):
        whole = undisturbed(sources[kind], tmp_path)
        array = {"tiff": ScratchArray, "zarr": zarr.Array}[kind]
        real: Callable[..., None] = array.__setitem__
        writes: list[int] = []

        def filling(self: Any, key: Any, value: Any) -> None:
            writes.append(1)
            if len(writes) > 21:  # in the middle of the 11th piece: its mean is written, the rest is not
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(array, "__setitem__", filling)
            summary = run(sources[kind], tmp_path / "out")
        assert summary.stopped_by == "full disk"
        text = summary.sentence()
        assert "no space left on the disk" in text
        assert "is kept" in text
        assert journal_lines(tmp_path / "out") == 10
        computed.clear()
        run(sources[kind], tmp_path / "out", resume=True)
        assert len(computed) == PIECES - 10
        assert tree(tmp_path / "out") == whole

    def test_a_journal_that_cannot_be_written_counts_as_not_done(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        computed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ):
        whole = undisturbed(sources[kind], tmp_path)
        real = LabelJournal.add

        def full(self: LabelJournal, piece: Any, checksum: int) -> None:
            if len(self._written) == 5:
                self._file.write(b"[0, 0, 224, 1")  # what a full disk took of the line
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, piece, checksum)

        with monkeypatch.context() as patch:
            patch.setattr(LabelJournal, "add", full)
            assert run(sources[kind], tmp_path / "out").stopped_by == "full disk"
        for pieces in (6, 3):
            stopped(sources[kind], tmp_path / "out", Stop(pieces), resume=True)
        computed.clear()
        run(sources[kind], tmp_path / "out", resume=True)
        assert len(computed) == PIECES - 5 - 6 - 3
        assert tree(tmp_path / "out") == whole

    @pytest.mark.parametrize("damage", ["lost", "cut off"])
    def test_pixels_that_a_power_failure_spoiled_are_computed_again(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        damage: str,
        computed: Any,
    ):
        whole = undisturbed(sources[kind], tmp_path)
        stopped(sources[kind], tmp_path / "out", Stop(15))
        part = tmp_path / "out" / ".cells.part"
        if kind == "zarr":
            # At the border, where a chunk is not filled by its piece.
            chunk = part / "cells.ome.zarr" / "0" / "c" / "0" / "1" / "0" / "1" / "1"
            if damage == "lost":
                chunk.unlink()
            else:
                chunk.write_bytes(chunk.read_bytes()[:1000])
        else:
            with (part / "mean.pixels").open("r+b") as file:
                file.seek(4 * (70 * 90 + 60))
                file.write(b"\0" * (4 if damage == "lost" else 40))
        computed.clear()
        run(sources[kind], tmp_path / "out", resume=True)
        assert len(computed) == PIECES - 15 + 1
        assert tree(tmp_path / "out") == whole

    def test_stopped_between_two_files_it_puts_the_other_in_place(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        computed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ):
        import insilico.label_journal

        whole = undisturbed(sources[kind], tmp_path)
        real = insilico.label_journal.put_in_place

        def once(made: Path, place: Path) -> None:
            real(made, place)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(insilico.label_journal, "put_in_place", once)
            with pytest.raises(KeyboardInterrupt):
                run(sources[kind], tmp_path / "out")
        computed.clear()
        assert run(sources[kind], tmp_path / "out", resume=True).notes == ()
        assert not computed
        assert tree(tmp_path / "out") == whole

    @pytest.mark.parametrize("deleted", [False, True])
    def test_stopped_when_all_are_in_place_nothing_is_left_behind(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        deleted: bool,
        computed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ):
        import insilico.label_journal

        whole = undisturbed(sources[kind], tmp_path)

        def stop(_: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            real = LabelJournal.finish

            def finish(self: LabelJournal) -> None:
                patch.setattr(insilico.label_journal, "remove", stop)
                real(self)

            patch.setattr(LabelJournal, "finish", finish)
            with pytest.raises(KeyboardInterrupt):
                run(sources[kind], tmp_path / "out")
        assert (tmp_path / "out" / ".cells.part").exists()
        if deleted:
            remove(next(path for path in (tmp_path / "out").iterdir() if path.name.startswith("cells.q95")))
        computed.clear()
        summary = run(sources[kind], tmp_path / "out", resume=True)
        assert (summary.notes == ()) == deleted
        assert len(computed) == (PIECES if deleted else 0)
        assert tree(tmp_path / "out") == whole

    def test_two_runs_do_not_write_the_same_result(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str
    ):
        heard: list[LinceiError] = []

        def progress(update: Progress) -> None:
            if update.stage == "labeling" and not heard:
                second = run(sources[kind], tmp_path / "out", resume=True)
                heard.append(second.failures[0].error)

        label_files([str(sources[kind])], tmp_path / "out", options(), progress=progress)
        assert "another run is writing this result" in str(heard[0])
        whole = undisturbed(sources[kind], tmp_path)
        assert tree(tmp_path / "out") == whole


@KINDS
class TestChanged:
    def anew(
        self, source: Path, out: Path, match: str, computed: list[int], **fields: Any
    ) -> dict[str, bytes]:
        computed.clear()
        with pytest.warns(LinceiWarning, match=f"cells: the {match} changed since .* labeled anew"):
            label_files([str(source)], out, options(resume=True, **fields))
        assert len(computed) >= PIECES
        return tree(out)

    def test_options(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str, computed: Any
    ):
        stopped(sources[kind], tmp_path / "out", Stop(5))
        labels = ("MAP2",)
        found = self.anew(sources[kind], tmp_path / "out", "options", computed, labels=labels)
        run(sources[kind], tmp_path / "whole", labels=labels)
        assert found == tree(tmp_path / "whole")

    def test_the_model(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str, computed: Any
    ):
        stopped(sources[kind], tmp_path / "out", Stop(5))
        self.anew(sources[kind], tmp_path / "out", "model", computed, model=("tiny-one",))

    def test_the_input(self, tiny: TinyModels, tmp_path: Path, kind: str, computed: Any):
        source = tmp_path / ("cells.ome.zarr" if kind == "zarr" else "cells.ome.tif")
        save_image(gray(stack(1, 640, 530)), source)
        stopped(source, tmp_path / "out", Stop(5))
        save_image(gray(stack(1, 640, 530, seed=1)), source)
        found = self.anew(source, tmp_path / "out", "input", computed)
        run(source, tmp_path / "whole")
        assert found == tree(tmp_path / "whole")

    def test_the_program_and_the_options(
        self,
        tiny: TinyModels,
        sources: dict[str, Path],
        tmp_path: Path,
        kind: str,
        computed: Any,
        monkeypatch: pytest.MonkeyPatch,
    ):
        stopped(sources[kind], tmp_path / "out", Stop(5))
        monkeypatch.setattr(lincei, "__version__", "99.0")
        self.anew(sources[kind], tmp_path / "out", "options and the program", computed, labels=("DAPI",))


class TestLeftOut:
    @pytest.mark.parametrize("in_memory", [0, 2**40])
    def test_what_is_there_of_the_same_input_and_options_is_not_done_again(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, monkeypatch: Any, in_memory: int
    ):
        monkeypatch.setattr(insilico.label_files, "IN_MEMORY_BYTES", in_memory)
        inputs = []
        for number in range(3):
            path = tmp_path / f"field{number}.ome.tif"
            inputs.append(str(save_image(gray(stack(1, 60, 70, seed=number)), path)))
        label_files(inputs[:2], tmp_path / "out", options())
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
        summary = label_files(inputs, tmp_path / "out", options(resume=True))
        assert summary.sentence() == (
            "3 inputs done.\n2 of them were there already, from the same input, model and options."
        )
        assert [path.name for paths in summary.done for path in paths] == [
            f"field{number}{statistic}.ome.tif" for number in range(3) for statistic in ("", ".q95")
        ]
        assert {path: path.stat().st_mtime_ns for path in before} == before
        again = label_files(inputs, tmp_path / "out", options(resume=True, statistics=("mean",)))
        assert again.notes == (), "the mean that is there was computed with other options"
        assert label_files(inputs, tmp_path / "out", options()).notes == ()

    @pytest.mark.parametrize("damage", ["missing", "truncated"])
    def test_what_lacks_a_statistic_or_is_damaged_is_done_again(
        self, tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, damage: str
    ):
        run(sources["tiff"], tmp_path / "out")
        before = tree(tmp_path / "out")
        path = tmp_path / "out" / "cells.q95.ome.tif"
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:5000])
        assert run(sources["tiff"], tmp_path / "out", resume=True).notes == ()
        assert tree(tmp_path / "out") == before


@KINDS
def test_killed_at_any_moment_and_gone_on_with_it_is_the_same_byte_for_byte(
    tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, kind: str
):
    """SIGKILL leaves a program no time for anything."""
    whole = undisturbed(sources[kind], tmp_path)
    words = [sys.executable, "-c", COMMAND, "label", str(sources[kind]), "--out", str(tmp_path / "out")]
    words += ["--model", "tiny", "--statistics", ",".join(STATISTICS), "--tile-px", "64", "--resume"]
    out, moments = tmp_path / "out", random.Random()
    kills = 0
    while kills < 2:
        low, high = ((1, 8), (9, 19))[kills]
        if killed(words, out, moments.randint(low, high), moments.uniform(0, 0.03)):
            kills += 1
            assert [path.name for path in out.iterdir()] == [".cells.part"]
        else:  # it was done before: this machine is busy with other things
            kills = 0
            shutil.rmtree(out)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "1 input done."
    assert tree(out) == whole


def killed(words: list[str], out: Path, pieces: int, delay_s: float) -> bool:
    """Kill the command a moment after so many pieces are written; tell whether it was still at work."""
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while journal_lines(out) < pieces and child.poll() is None:
        time.sleep(0.001)
    time.sleep(delay_s)
    child.kill()
    errors = child.communicate()[1].decode()
    assert child.returncode in (0, -signal.SIGKILL), errors
    return child.returncode != 0


def test_results_on_the_disk_are_those_held_in_memory(
    tiny: TinyModels, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(sources["tiff"], tmp_path / "disk")
    monkeypatch.setattr(insilico.label_files, "IN_MEMORY_BYTES", 2**40)
    run(sources["tiff"], tmp_path / "memory")
    assert tree(tmp_path / "disk") == tree(tmp_path / "memory")


@pytest.mark.parametrize("model", ["tiny", "tiny-scaled"])
@pytest.mark.parametrize("tile_px", [48, 100, 1024])
def test_no_chunk_is_written_twice(
    tiny: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, tile_px: int
):
    """So that a piece which was cut off harms no other, and nothing is read back to be written again."""
    source = save_image(gray(stack(1, 330, 260), pixel_size_um=0.4, z_step_um=2), tmp_path / "in.ome.zarr")
    chunks: list[tuple[int, ...]] = []
    real: Callable[..., None] = zarr.Array.__setitem__

    def noted(self: Any, key: Any, value: Any) -> None:
        if self.path == "0":
            ranges = [
                range(part.start // side, (part.stop - 1) // side + 1)
                for part, side in zip(key, self.chunks, strict=True)
            ]
            chunks.extend(
                (id(self), *(r.start + i for r, i in zip(ranges, index, strict=True)))
                for index in np.ndindex(*map(len, ranges))
            )
        real(self, key, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", noted)
    label_files([str(source)], tmp_path / "out", options(model=(model,), tile_px=tile_px))
    assert len(set(chunks)) == len(chunks)


MEMORY = """
import json, resource, sys
import insilico.label_files
from insilico import LabelOptions

source, out = sys.argv[1:]
insilico.label_files.IN_MEMORY_BYTES = 2**22
insilico.label_files.label_files([source], out, LabelOptions(model=("tiny-one",), tile_px=512))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak / (2**20 if sys.platform == "darwin" else 2**10)))
"""


@KINDS
def test_peak_memory_does_not_grow_with_the_image(tiny: TinyModels, tmp_path: Path, kind: str):
    """In MiB; the results, four arrays of float32, grow by 135 from one size to the other."""
    pytest.importorskip("resource", reason="Windows does not tell a process's peak memory so")
    field = gray(stack(1, 512, 512)).read()
    peaks = []
    for side in (1024, 3072):
        image = lincei.image.Image(np.tile(field, (1, 1, 1, side // 512, side // 512)))
        source = save_image(image, tmp_path / f"cells{side}.ome.{'zarr' if kind == 'zarr' else 'tif'}")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(source), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(json.loads(done.stdout))
        assert open_image(tmp_path / "out" / source.name).shape[3:] == (side, side)
        shutil.rmtree(tmp_path / "out")
    assert peaks[1] - peaks[0] < 70, peaks
