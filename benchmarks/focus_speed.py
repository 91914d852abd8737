"""How fast one large image and a folder of many small ones are rated on two cores, and in how much memory.

    python benchmarks/focus_speed.py
    python benchmarks/focus_speed.py --files 200 --size-px 4096    # a quick look

Beside it, in the same run and engine and on the same patches, stands a network of the 2018 architecture (see
`focus_network_2018`).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from focus_network_2018 import write_focus_network_2018
from machine import (
    RESULTS,
    about,
    in_fresh_process,
    memory_mib,
    peak_memory_mib,
    spread,
    table,
    use_cores,
    write_results,
)

# What the project asks for, in megapixels a second on two cores, and what it aims at.
AT_LEAST, AIM = 30.0, 100.0
FIELD_PX = (520, 696)
DISTINCT_FIELDS = 12
PATCHES_AT_A_TIME = (16, 64, 256)
# After how many files memory should grow no more.
SETTLED_FILES = 200

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class ImageTimes:
    """What was measured of one large image, in a process of its own.

    Parameters
    ----------
    engine : str
        What ran the networks.
    megapixels, patches : float, int
        Of the image.
    seconds : list of float
        Calls of `focusqc.focus`, image in memory, model loaded.
    ours_alone_s, old_alone_s : list of float
        Runs of only the networks, ours and the 2018 one, over the same patches; the latter scaled up from
        the patches that it was given.
    before_mib, peak_mib : float
        Peak memory of the process before the first call, image included, and after the last.
    """

    engine: str
    megapixels: float
    patches: int
    seconds: list[float]
    ours_alone_s: list[float]
    old_alone_s: list[float]
    before_mib: float
    peak_mib: float


@dataclass(frozen=True)
class FolderTimes:
    """What was measured of a folder of files, in a process of its own.

    Parameters
    ----------
    overlays : bool
        Whether overlays were written.
    files : int
        How many there were.
    megapixels : float
        Of all files.
    seconds : float
        From the first file's name to the written page.
    settled_mib, end_mib : float
        Memory of the process after `SETTLED_FILES` files and after the last file, before the page is written.
    peak_mib : float
        Most memory at any time, the page included.
    """

    overlays: bool
    files: int
    megapixels: float
    seconds: float
    settled_mib: float
    end_mib: float
    peak_mib: float


def fields(count: int, shape: tuple[int, int] = FIELD_PX) -> Any:
    """Return seeded fields of disks, uint16, at levels of defocus from 0 to 10: shape (count, Y, X).

    Speed does not depend on what is to be seen, only memory and the size of files do a little.
    """
    import numpy as np
    from scipy.signal import fftconvolve

    from lincei.optics import defocus_kernel, saturated, with_offset, with_read_noise, with_shot_noise

    random = np.random.default_rng(0)
    y, x = np.mgrid[-12:13, -12:13]
    disk = (np.hypot(y, x) < 8.5).astype(float)
    made = []
    for i in range(count):
        centers = np.where(random.random(shape) < 1 / 4000, random.uniform(100, 1000, shape), 0.0)
        light = 20 + fftconvolve(centers, disk, mode="same")
        kernel = defocus_kernel(2.0 * (i % 11))
        reach = kernel.shape[0] // 2
        blurred = fftconvolve(np.pad(light, reach, mode="symmetric"), kernel, mode="valid")
        counts = with_read_noise(with_shot_noise(blurred, random), 3.0, random)
        made.append(saturated(with_offset(counts, 2.0, 100.0), 16))
    return np.stack(made)


def large_image(size_px: int) -> Any:
    """Return a square image, uint16, tiled from the fields."""
    import numpy as np

    from lincei.image import Image

    height, width = FIELD_PX
    tiles = fields(DISTINCT_FIELDS)
    rows, columns = -(-size_px // height), -(-size_px // width)
    mosaic = np.empty((rows * height, columns * width), np.uint16)
    for row in range(rows):
        for column in range(columns):
            part = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
            mosaic[part] = tiles[(row * columns + column) % len(tiles)]
    pixels = np.ascontiguousarray(mosaic[:size_px, :size_px])
    return Image.from_array(pixels, axes="YX", name="large", modality="fluorescence")


def time_networks(
    opened: Sequence[Any],
    pixels: Any,
    patches: Sequence[int],
    repeats: int,
    sizes: Sequence[int] = PATCHES_AT_A_TIME,
) -> list[list[float]]:
    """Time networks over the first so many patches of a plane, turn by turn, cutting not counted.

    Returns
    -------
    list of list of float
        Seconds of each network's runs, at the number of patches at a time that is fastest for it.
    """
    from focusqc.patches import patch_grid, patch_pixels

    grid = patch_grid(*pixels.shape)
    times: list[dict[int, list[float]]] = [{size: [] for size in sizes} for _ in opened]
    for number in range(repeats + 1):
        for engine, count, taken in zip(opened, patches, times, strict=True):
            for size in sizes:
                batch = min(size, count)
                if number == 0:  # compiles for this number of patches
                    engine.run(patch_pixels(pixels, grid, 0, batch))
                    continue
                spent = 0.0
                # Whole batches only, as another number of patches would be compiled anew.
                for first in range(0, count - batch + 1, batch):
                    cut = patch_pixels(pixels, grid, first, first + batch)
                    started = time.perf_counter()
                    engine.run(cut)
                    spent += time.perf_counter() - started
                taken[size].append(spent * count / (count // batch * batch))
    return [min(taken.values(), key=statistics.median) for taken in times]


def time_image(
    model: str, old: str | None, engine: str, threads: int, size_px: int, repeats: int, old_patches: int
) -> ImageTimes:
    """Time `focusqc.focus` and then, where ``old`` is given, both networks alone; in a fresh process."""
    from focusqc.focus_image import focus
    from focusqc.patches import patch_grid
    from lincei.engine import cached_engine, open_engine
    from lincei.errors import LinceiWarning
    from lincei.model import Model, find_model

    warnings.simplefilter("ignore", LinceiWarning)
    image = large_image(size_px)
    found = find_model(model, task="focus")
    before = peak_memory_mib()
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        focus(image, found, engine=engine, threads=threads)
        seconds.append(time.perf_counter() - started)
    peak = peak_memory_mib()
    ours: list[float] = []
    theirs: list[float] = []
    total = len(patch_grid(size_px, size_px))
    opened = cached_engine(found, engine=engine, threads=threads, outputs=("probabilities",))
    if old is not None:
        count = min(total, old_patches)
        with open_engine(Model.from_folder(old), engine=engine, threads=threads) as old_engine:
            ours, theirs = time_networks([opened, old_engine], image.read()[0, 0, 0], [total, count], repeats)
        theirs = [taken * total / count for taken in theirs]
    name = f"{opened.name} {opened.version}"
    return ImageTimes(name, size_px**2 / 1e6, total, seconds[1:], ours, theirs, before, peak)


def old_peak_mib(old: str, engine: str, threads: int, size_px: int, old_patches: int) -> tuple[float, float]:
    """Return the peak memory before and after the 2018 network alone ran; in a fresh process."""
    from focusqc.patches import patch_grid
    from lincei.engine import open_engine
    from lincei.model import Model

    image = large_image(size_px)
    before = peak_memory_mib()
    count = min(len(patch_grid(size_px, size_px)), old_patches)
    with open_engine(Model.from_folder(old), engine=engine, threads=threads) as opened:
        time_networks([opened], image.read()[0, 0, 0], [count], 1, PATCHES_AT_A_TIME[-1:])
    return before, peak_memory_mib()


def write_fields(folder: str, count: int) -> None:
    """Write ``count`` TIFFs of the fields, each shifted in its own way; in a fresh process."""
    import numpy as np
    import tifffile

    made = fields(min(count, DISTINCT_FIELDS))
    for i in range(count):
        pixels = np.roll(made[i % len(made)], (7 * i, 11 * i), (0, 1))
        tifffile.imwrite(Path(folder) / f"field_{i:05d}.tif", pixels)


class FileCounter:
    """A progress callback that notes the process's memory as files are done."""

    def __init__(self, files: int) -> None:
        self._files = files
        self.settled_mib = self.end_mib = float("nan")
        self._is_settled = False

    def __call__(self, update: Any) -> None:
        """Take the memory at the end of each report."""
        if update.total <= 0:
            return
        done = update.done / update.total * self._files
        self.end_mib = memory_mib()
        if not self._is_settled and done >= min(SETTLED_FILES, self._files / 2):
            self._is_settled, self.settled_mib = True, self.end_mib


def time_folder(
    model: str, folder: str, out: str, files: int, overlays: bool, engine: str, threads: int
) -> FolderTimes:
    """Time `focus_files` on a folder; in a fresh process."""
    from focusqc.focus_files import focus_files
    from focusqc.options import FocusOptions
    from lincei.errors import LinceiWarning

    warnings.simplefilter("ignore", LinceiWarning)
    counter = FileCounter(files)
    options = FocusOptions(
        model=model, overlays=overlays, engine=engine, threads=threads, modality="fluorescence"
    )
    started = time.perf_counter()
    summary = focus_files([folder], out, options, progress=counter)
    seconds = time.perf_counter() - started
    if summary.exit_code or len(summary.done) != files:
        raise SystemExit(summary.sentence())
    megapixels = files * FIELD_PX[0] * FIELD_PX[1] / 1e6
    # The system counts the peak and the present memory in two ways that differ by a fraction of a MiB.
    peak_mib = max(peak_memory_mib(), counter.end_mib)
    return FolderTimes(overlays, files, megapixels, seconds, counter.settled_mib, counter.end_mib, peak_mib)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "focus-fluorescence",
    engine: Annotated[str, typer.Option(help="Engine of both networks.")] = "openvino",
    cores: Annotated[int, typer.Option(min=1, help="Processor cores and threads.")] = 2,
    size_px: Annotated[int, typer.Option(min=84, help="Height and width of the large image.")] = 8192,
    files: Annotated[int, typer.Option(min=2, help="Files in the folder.")] = 2000,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls after the first.")] = 5,
    old_patches: Annotated[
        int, typer.Option(min=1, help="Patches given to the 2018 network; its time is scaled to all.")
    ] = 1024,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    used = use_cores(cores)
    with tempfile.TemporaryDirectory(prefix="lincei-benchmark-") as scratch:
        old = str(Path(scratch) / "focus-network-2018")
        parameters = in_fresh_process(write_focus_network_2018, old)
        alone = in_fresh_process(time_image, model, None, engine, used, size_px, repeats, old_patches)
        both = in_fresh_process(time_image, model, old, engine, used, size_px, repeats, old_patches)
        old_memory = in_fresh_process(old_peak_mib, old, engine, used, size_px, old_patches)
        inputs = Path(scratch) / "fields"
        inputs.mkdir()
        in_fresh_process(write_fields, str(inputs), files)
        folders = [
            in_fresh_process(
                time_folder, model, str(inputs), str(Path(scratch) / f"out-{o}"), files, o, engine, used
            )
            for o in (False, True)
        ]
    # Memory is that of the process which ran nothing but ours.
    image = dataclasses.replace(both, before_mib=alone.before_mib, peak_mib=alone.peak_mib)
    write_results(
        out, "focus_speed", report(model, image, old_memory, parameters, folders, used, repeats, old_patches)
    )
    results = {
        "image": dataclasses.asdict(image),
        "network_2018": {"parameters": parameters, "before_mib": old_memory[0], "peak_mib": old_memory[1]},
        "folders": [dataclasses.asdict(found) for found in folders],
    }
    (out / "focus_speed.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def report(
    model: str,
    image: ImageTimes,
    old_memory: tuple[float, float],
    parameters: int,
    folders: Sequence[FolderTimes],
    cores: int,
    repeats: int,
    old_patches: int,
) -> str:
    """Return the results as Markdown."""
    side = round((image.megapixels * 1e6) ** 0.5)
    old = statistics.median(image.old_alone_s)
    speed = image.megapixels / statistics.median(image.seconds)
    verdict = (
        f"The aim of {AIM:g} megapixels a second is reached."
        if speed >= AIM
        else f"The project asks for at least {AT_LEAST:g} megapixels a second, which is "
        f"{'reached' if speed >= AT_LEAST else 'not reached'}, and aims at {AIM:g}."
    )

    def row(name: str, taken: Sequence[float], before: str, peak: str) -> list[str]:
        median = statistics.median(taken)
        return [name, spread(taken), f"{image.megapixels / median:.1f}", f"{old / median:.1f}", peak, before]

    blank = "-"
    return "\n\n".join(
        [
            "# How long rating focus takes",
            about(["numpy", "openvino", "onnxruntime", "tifffile"], cores),
            "## One large image",
            f"`focusqc.focus` with the model {Path(model).name!r} on {side}x{side} pixels (uint16, in "
            f"memory, drawn cells, {image.patches} patches), {image.engine}, {cores} threads. Median of "
            f"{repeats} calls after a first one; range in brackets. The networks alone ran in the same "
            f"process on the same patches, with {', '.join(map(str, PATCHES_AT_A_TIME))} at a time, "
            "whichever is fastest for each; cutting patches is not counted for them, and is for "
            f"`focusqc.focus`. The network of the 2018 architecture (Yang et al., {parameters / 1e6:.1f} "
            "million parameters, random weights, see `focus_network_2018.py`) was given "
            f"{min(old_patches, image.patches)} of the patches, and its time scaled to all of them. Peak "
            "memory is that of a process that ran nothing else, Python and the image included; for the 2018 "
            f"network with {PATCHES_AT_A_TIME[-1]} patches at a time, as many as `focusqc.focus` takes.",
            table(
                [
                    "what",
                    "time",
                    "megapixels a second",
                    "times as fast as the 2018 network",
                    "peak memory",
                    "of it before, with the image",
                ],
                [
                    row("`focusqc.focus`", image.seconds, _mib(image.before_mib), _mib(image.peak_mib)),
                    row("our network alone", image.ours_alone_s, blank, blank),
                    row("the 2018 network alone", image.old_alone_s, *map(_mib, old_memory)),
                ],
            ),
            verdict,
            "## A folder of many images",
            f"`focus_files` on {folders[0].files} TIFFs of {FIELD_PX[0]}x{FIELD_PX[1]} pixels (uint16, not "
            "compressed), from the first file's name to the written page, tables included; the model is "
            "loaded once. Each in a process of its own. Memory should be flat: what the process holds after "
            f"{min(SETTLED_FILES, folders[0].files // 2)} files beside what it holds after the last.",
            table(
                [
                    "overlays",
                    "time",
                    "files a second",
                    "megapixels a second",
                    f"memory after {min(SETTLED_FILES, folders[0].files // 2)} files",
                    "after the last",
                    "peak, with the page",
                ],
                [
                    [
                        "yes" if found.overlays else "no",
                        f"{found.seconds:.1f} s",
                        f"{found.files / found.seconds:.0f}",
                        f"{found.megapixels / found.seconds:.1f}",
                        *map(_mib, (found.settled_mib, found.end_mib, found.peak_mib)),
                    ]
                    for found in folders
                ],
            ),
        ]
    )


def _mib(memory: float) -> str:
    return f"{memory:.0f} MiB"


if __name__ == "__main__":
    app()
