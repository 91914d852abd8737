"""How long a 1024x1024 stack of 13 planes takes to label on two cores, and where the time goes.

    python benchmarks/label_speed.py                # the shipped model
    python benchmarks/label_speed.py --untrained    # the default network with random weights

The whole of `insilico.label` is timed, with the image in memory and the model loaded, against a network of
the 2018 size (see `network_2018`) in the same engine and the same run.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer
from machine import RESULTS, about, in_fresh_process, peak_memory_mib, spread, table, use_cores, write_results
from network_2018 import BINS, INPUT_PX, LABELS, OUTPUT_PX, PLANES, Size, write_network_2018

# What the project asks of the shipped model.
AIM_S = 1.0
UNTRAINED_LABELS = {"DAPI": "#0000FF", "MAP2": "#00FF00", "NFH": "#FF0000"}
PATCHES_AT_A_TIME = (1, 8)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class LabelTimes:
    """What was measured of `insilico.label` in a process of its own.

    Parameters
    ----------
    engine : str
        What ran the network.
    labels : int
        How many labels were predicted.
    first_s : float
        The first call, which loads the model and compiles the network.
    seconds : list of float
        The calls after it.
    stages : dict of str to float
        Median time of each stage; they may overlap.
    before_mib, peak_mib : float
        Peak memory of the process before the first call, image included, and after the last.
    """

    engine: str
    labels: int
    first_s: float
    seconds: list[float]
    stages: dict[str, float]
    before_mib: float
    peak_mib: float


@dataclass(frozen=True)
class PatchTimes:
    """What was measured of the network of the 2018 size: times of a run, by the patches at a time."""

    seconds: dict[int, list[float]]

    @property
    def patch_s(self) -> float:
        """Time of a patch, at the number of patches at a time that is faster."""
        return min(statistics.median(taken) / count for count, taken in self.seconds.items())


def write_untrained(folder: str, planes: int) -> None:
    """Write a model of the default network with random weights."""
    import keras

    from insilico.model_folder import write_labeling_model
    from insilico.network import NetworkConfig, build_trunk
    from insilico.options import TrainOptions

    keras.utils.set_random_seed(0)
    config = NetworkConfig(len(UNTRAINED_LABELS), planes)
    write_labeling_model(
        Path(folder),
        build_trunk(config),
        config,
        labels=UNTRAINED_LABELS,
        options=TrainOptions(),
        figures={"test": {}, "split": "none, the weights are random", "epochs": 0, "minutes": 0.0},
        modalities=("phase contrast",),
        pixel_size_um=None,
        z_step_um=None,
        training={"fields": 0, "steps": 0, "backend": keras.backend.backend(), "precision": "float32"},
    )


def stack_of(planes: int, size_px: int) -> Any:
    """Return a seeded stack, uint16: structures of a few pixels that change their contrast through focus.

    Speed does not depend on what is to be seen.
    """
    import numpy as np
    from scipy import ndimage

    from lincei.image import Image

    random = np.random.default_rng(0)
    structure = ndimage.gaussian_filter(random.normal(size=(size_px, size_px)), 2)
    structure /= structure.std()
    contrast = 1 + 0.5 * np.cos(np.linspace(0, np.pi, planes))
    noise = random.normal(scale=30, size=(planes, size_px, size_px))
    pixels = 8000 + 1000 * contrast[:, None, None] * structure + noise
    return Image.from_array(pixels.astype(np.uint16), axes="ZYX", name="stack", modality="phase contrast")


@contextmanager
def stopwatches(spent: dict[str, float], parts: dict[str, tuple[Any, str]]) -> Iterator[None]:
    """Add up in ``spent`` the time within the functions ``parts``: stage to owner and attribute."""
    with ExitStack() as stack:
        for stage, (owner, name) in parts.items():
            stack.enter_context(mock.patch.object(owner, name, _timed(getattr(owner, name), stage, spent)))
        yield


def _timed(function: Callable[..., Any], stage: str, spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **keywords)
        finally:
            spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - started

    return timed


def time_label(model: str, engine: str, threads: int, planes: int, size_px: int, repeats: int) -> LabelTimes:
    """Time `insilico.label`; called in a fresh process."""
    from insilico import label, labeling
    from lincei.engine import ENGINES
    from lincei.errors import LinceiWarning
    from lincei.model import find_model
    from lincei.normalize import IntensityScaling

    warnings.simplefilter("ignore", LinceiWarning)  # the scale of the stack is not stated
    image = stack_of(planes, size_px)
    found = find_model(model, task="label")
    before = peak_memory_mib()
    parts = {
        "sampling the intensities": (labeling, "standard_scaling"),
        "measuring drift": (labeling, "drift_px"),
        "reading tiles": (labeling, "read_tile"),
        "scaling the intensities": (IntensityScaling, "apply"),
        "network": (ENGINES[engine], "run"),
    }
    seconds, stages, result = [], [], {}
    for _ in range(repeats + 1):
        spent: dict[str, float] = {}
        with stopwatches(spent, parts):
            started = time.perf_counter()
            result = label(image, found, engine=engine, threads=threads, statistics=("mean", "sd"))
            seconds.append(time.perf_counter() - started)
        spent["the rest"] = seconds[-1] - sum(spent.values())
        stages.append(spent)
    provenance = result["mean"].provenance or {}
    return LabelTimes(
        provenance["engine"][0],
        result["mean"].shape[1],
        seconds[0],
        seconds[1:],
        {stage: statistics.median(s.get(stage, 0.0) for s in stages[1:]) for stage in [*parts, "the rest"]},
        before,
        peak_memory_mib(),
    )


def time_patches(folder: str, engine: str, threads: int, repeats: int) -> PatchTimes:
    """Time the network of the 2018 size; called in a fresh process."""
    import numpy as np

    from lincei.engine import open_engine
    from lincei.model import Model

    model = Model.from_folder(folder)
    random = np.random.default_rng(0)
    planes = model.card.z_planes
    times: dict[int, list[float]] = {}
    with open_engine(model, engine=engine, threads=threads) as opened:
        for count in PATCHES_AT_A_TIME:
            patches = random.normal(size=(count, planes, INPUT_PX, INPUT_PX)).astype(np.float32)
            times[count] = []
            for number in range(repeats + 1):
                started = time.perf_counter()
                opened.run(patches)
                if number:  # the first run compiles
                    times[count].append(time.perf_counter() - started)
    return PatchTimes(times)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "motor-neurons",
    untrained: Annotated[bool, typer.Option(help="The default network with random weights instead.")] = False,
    engine: Annotated[list[str] | None, typer.Option(help="Engine; several times for several.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="Processor cores and threads.")] = 2,
    planes: Annotated[int, typer.Option(min=1, help="Planes of the stack.")] = 13,
    size_px: Annotated[int, typer.Option(min=64, help="Height and width of the stack.")] = 1024,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls after the first.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    engines = engine or ["openvino", "onnxruntime"]
    used = use_cores(cores)
    with tempfile.TemporaryDirectory(prefix="lincei-benchmark-") as scratch:
        if untrained:
            model = str(Path(scratch) / "untrained")
            in_fresh_process(write_untrained, model, planes)
        stand_in = str(Path(scratch) / "network-2018")
        size = in_fresh_process(write_network_2018, stand_in)
        labeled = [in_fresh_process(time_label, model, e, used, planes, size_px, repeats) for e in engines]
        patches = [in_fresh_process(time_patches, stand_in, e, used, repeats) for e in engines]
    name = "an untrained network of the default size" if untrained else f"the model {Path(model).name!r}"
    text = report(name, planes, size_px, used, repeats, labeled, patches, size)
    write_results(out, "label_speed_untrained" if untrained else "label_speed", text)


def report(
    name: str,
    planes: int,
    size_px: int,
    cores: int,
    repeats: int,
    labeled: Sequence[LabelTimes],
    patches: Sequence[PatchTimes],
    size: Size,
) -> str:
    """Return the results as Markdown."""
    megapixels = size_px**2 / 1e6
    needed = math.ceil(size_px / OUTPUT_PX) ** 2
    whole, stages, ratios = [], [], []
    for times, patch in zip(labeled, patches, strict=True):
        median = statistics.median(times.seconds)
        old = patch.patch_s * needed
        whole.append(
            [
                times.engine,
                spread(times.seconds),
                "yes" if median < AIM_S else "no",
                f"{megapixels / median:.2f}",
                f"{times.first_s:.2f} s",
                f"{times.peak_mib:.0f} MiB",
                f"{times.peak_mib - times.before_mib:.0f} MiB",
            ]
        )
        stages.append([times.engine, *(f"{1000 * seconds:.0f}" for seconds in times.stages.values())])
        ratios.append([times.engine, f"{patch.patch_s:.4f} s", f"{old:.0f} s", f"{old / median:.0f}"])
    return "\n\n".join(
        [
            "# How long labeling takes",
            about(["numpy", "scipy", "openvino", "onnxruntime"], cores),
            f"`insilico.label` with {name}: a {size_px}x{size_px} stack of {planes} planes (uint16, in "
            f"memory), {labeled[0].labels} labels, mean and sd, {cores} threads. Median of {repeats} call(s) "
            "after a first one, which also loads the model and compiles the network; range in brackets. Each "
            "engine has a process of its own; its peak memory is that of the whole process, Python and the "
            "image included.",
            table(
                [
                    "engine",
                    "time",
                    f"under {AIM_S:g} s",
                    "megapixels a second",
                    "first call",
                    "peak memory",
                    "of it since the image was there",
                ],
                whole,
            ),
            "## Where the time goes",
            "Milliseconds, the median of each stage by itself. Stages that run at the same time add up to "
            "more than the whole, and the rest is then below 0.",
            table(["engine", *labeled[0].stages], stages),
            "## Beside a network of the 2018 size",
            "A stand-in with the published figures of Christiansen et al. (2018): "
            f"{INPUT_PX}x{INPUT_PX} pixels of {PLANES} planes in, {OUTPUT_PX}x{OUTPUT_PX} pixels of {LABELS} "
            f"labels with {BINS} bins out, {size.parameters / 1e6:.1f} million parameters, "
            f"{size.multiplications / 1e9:.2f} billion multiplications a patch. Its list of layers is ours "
            "and its weights are random (see `network_2018.py`); it is exported and run as our own networks "
            f"are. A {size_px}x{size_px} image needs {needed} patches; the time of one patch (with "
            f"{' or '.join(map(str, PATCHES_AT_A_TIME))} at a time, whichever is faster) is multiplied by "
            "that. Cutting, scaling and stitching are not counted for it, and are for `insilico.label`.",
            table(["engine", "a patch", "the image", "times as long as `insilico.label`"], ratios),
        ]
    )


if __name__ == "__main__":
    app()
