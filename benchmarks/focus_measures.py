"""How `focusqc.focus` compares with the classical measures of focus, on the same real images.

    LINCEI_DATA=... python benchmarks/focus_measures.py
    LINCEI_DATA=... python benchmarks/focus_measures.py --model FOLDER

The measures are those that people use: the slope of the power spectrum as CellProfiler's MeasureImageQuality
defines it, Brenner's gradient, the variance of the Laplacian, and the normalized variance.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import RESULTS, about, table, use_cores, write_results
from numpy.typing import NDArray

from focusqc.focus_image import focus
from focusqc.levels import LAST_LEVEL_IN_FOCUS, LEVELS, STEP_UM, Optics
from focusqc.training import TEST_SHARE
from lincei.image import Image, open_image
from lincei.model import Model, find_model
from lincei.optics import (
    defocus_kernel,
    exposed,
    saturated,
    with_offset,
    with_read_noise,
    with_shot_noise,
)
from sample_data.registry import locate

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "focus_measures.png"
# The microscope of the beads; what they emit lies near 0.52 um.
BEAD_OPTICS = Optics(pixel_size_um=1.3668, na=0.75, wavelength_um=0.52)
# Of the simulated camera: a mean signal as of a short exposure, the same for all fields and levels.
PHOTOELECTRONS, READ_NOISE, GAIN, OFFSET, BITS = 200.0, 3.0, 2.0, 100.0, 16
# Beads further apart than this are measured each by itself.
BEAD_REACH_PX = 20
THRESHOLDS_FROM = "BBBC039, simulated"
OURS = "focusqc"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def power_log_log_slope(plane: NDArray[Any]) -> float:
    """Return the slope of log power over log spatial frequency; the blurrier, the more negative.

    As in CellProfiler's MeasureImageQuality (PowerLogLogSlope): the power is summed over rings one
    frequency wide, from the second to an eighth of the shorter side, and a line is fitted by least squares.
    """
    pixels = np.asarray(plane, np.float64)
    power = np.abs(np.fft.fft2(pixels - pixels.mean())) ** 2
    y, x = (np.fft.fftfreq(size, 1 / size) for size in pixels.shape)
    rings = np.hypot(y[:, None], x[None]).astype(int) + 1
    sums = np.bincount(rings.ravel(), power.ravel())
    numbers = np.arange(2, min(pixels.shape) // 8)
    numbers = numbers[sums[numbers] > 0]
    if len(numbers) < 2:
        return 0.0
    return float(np.polyfit(np.log(numbers), np.log(sums[numbers]), 1)[0])


def brenner_gradient(plane: NDArray[Any]) -> float:
    """Return the mean squared difference of pixels two apart along x."""
    pixels = np.asarray(plane, np.float64)
    return float(np.mean((pixels[:, 2:] - pixels[:, :-2]) ** 2))


def laplacian_variance(plane: NDArray[Any]) -> float:
    """Return the variance of the Laplacian (the four neighbors less four times the pixel)."""
    from scipy.ndimage import laplace

    return float(laplace(np.asarray(plane, np.float64)).var())


def normalized_variance(plane: NDArray[Any]) -> float:
    """Return the variance divided by the mean (CellProfiler's FocusScore)."""
    pixels = np.asarray(plane, np.float64)
    return float(pixels.var() / pixels.mean()) if pixels.mean() > 0 else 0.0


# The higher, the sharper.
CLASSICAL: dict[str, Callable[[NDArray[Any]], float]] = {
    "power log-log slope": power_log_log_slope,
    "Brenner gradient": brenner_gradient,
    "Laplacian variance": laplacian_variance,
    "normalized variance": normalized_variance,
}


@dataclass(frozen=True)
class Sample:
    """An image whose focus is known.

    Parameters
    ----------
    group : str
        Which field it shows.
    plane : ndarray, shape (Y, X)
        Gray values.
    sharp : bool
        Whether it counts as in focus.
    defocus : float or None
        How far it is out of focus: a level, or um; None where only sharp and blurred are known.
    """

    group: str
    plane: NDArray[Any]
    sharp: bool
    defocus: float | None = None


@dataclass(frozen=True)
class Scores:
    """The sharpness of a set's samples by one measure, the higher the sharper.

    Parameters
    ----------
    sharpness : ndarray
        One number per sample.
    in_focus : ndarray of bool or None
        The measure's own verdict; None for a measure that needs a threshold.
    uncertain : int
        How many samples it says nothing of; they count as not in focus.
    """

    sharpness: NDArray[np.float64]
    in_focus: NDArray[np.bool_] | None = None
    uncertain: int = 0


def folder_of(name: str) -> Path:
    folder = locate(name)
    if folder is None:
        raise SystemExit(f"the sample data {name} are not at hand: set LINCEI_DATA")
    return folder


def pixels_of(path: Path) -> NDArray[Any]:
    """Return the only plane of a file."""
    return open_image(path).read()[0, 0, 0]


def really_defocused() -> list[Sample]:
    """Return the fields of BBBC006: 3 sharp, 8 strongly out of focus."""
    return [
        Sample(path.stem, pixels_of(path), path.stem.startswith("sharp"))
        for path in sorted(folder_of("bbbc006_focus").glob("*.tif"))
    ]


def bead_stacks() -> dict[str, tuple[NDArray[np.float64], NDArray[Any]]]:
    """Return the z in um and the planes (Z, Y, X) of each field of beads."""
    found: dict[str, list[tuple[float, NDArray[Any]]]] = {}
    for path in sorted(folder_of("beads_zstack").glob("*.tif")):
        match = re.fullmatch(r"(.+)_w1_step\d+_Z([\d.]+)um", path.stem)
        if match is None:
            raise SystemExit(f"{path} does not name its z")
        found.setdefault(match[1], []).append((float(match[2]), pixels_of(path)))
    return {
        field: (np.array([z for z, _ in planes]), np.stack([plane for _, plane in planes]))
        for field, planes in found.items()
    }


def bead_radius_px(planes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the radius that holds half of a bead's light, in pixels, per plane: the median bead's.

    It is a length measured on the beads alone, and no measure of the image.
    """
    from scipy import ndimage

    reach = BEAD_REACH_PX
    stack = np.asarray(planes, np.float64)
    brightest = ndimage.gaussian_filter(stack.max(axis=0), 1)
    single = brightest == ndimage.maximum_filter(brightest, 2 * reach + 1)
    centers = [
        (y, x)
        for y, x in np.argwhere(single & (brightest > 4 * np.median(brightest)))
        if reach <= min(y, x) and y < stack.shape[1] - reach and x < stack.shape[2] - reach
    ]
    if not centers:
        raise SystemExit("there is no bead that stands alone")
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius = np.hypot(y, x)
    inside, rim = radius <= reach - 2, radius > reach - 2
    order = np.argsort(radius[inside], kind="stable")
    found = []
    for y, x in centers:
        windows = stack[:, y - reach : y + reach + 1, x - reach : x + reach + 1]
        light = windows - np.median(windows[:, rim], axis=1)[:, None, None]
        within = np.cumsum(light[:, inside][:, order], axis=1)
        half = np.argmax(within >= within[:, -1:] / 2, axis=1)
        found.append(radius[inside][order][half])
    result: NDArray[np.float64] = np.median(found, axis=0)
    return result


def best_z_um(z: NDArray[np.float64], planes: NDArray[Any]) -> dict[str, float]:
    """Return where a field of beads is in focus, in um, by definitions that use none of the measures.

    Far from focus the square of a bead's radius grows with the square of the distance, the same on both
    sides: the apex of a parabola through all planes is the focus.
    """
    radius = bead_radius_px(planes)
    middle = z.mean()
    curve, slope, _ = np.polyfit(z - middle, radius**2, 2)
    brightest = np.percentile(planes, 99.9, axis=(1, 2)).argmax()
    return {
        "apex of the squared bead radius": float(middle - slope / (2 * curve)),
        "plane of the smallest beads": float(z[radius.argmin()]),
        "brightest plane (percentile 99.9)": float(z[brightest]),
        "between steps 4 and 5 (the data's README)": float(z[3:5].mean()),
    }


FIRST_DEFINITION = "apex of the squared bead radius"


def beads(stacks: Mapping[str, tuple[NDArray[np.float64], NDArray[Any]]], definition: str) -> list[Sample]:
    """Return all planes of beads with their distance from focus in um.

    A plane is sharp within the defocus that level 2 means in the optics they were taken with.
    """
    limit = float(BEAD_OPTICS.defocus_um(LAST_LEVEL_IN_FOCUS))
    samples = []
    for field, (z, planes) in stacks.items():
        distances = np.abs(z - best_z_um(z, planes)[definition])
        samples += [
            Sample(field, plane, bool(d <= limit), float(d))
            for d, plane in zip(distances, planes, strict=True)
        ]
    return samples


def defocused(sharp: NDArray[Any], level: int, random: np.random.Generator) -> NDArray[np.uint16]:
    """Return a sharp field as a camera sees it at a level of defocus."""
    from scipy.signal import fftconvolve

    light = np.asarray(sharp, np.float64) - np.percentile(sharp, 0.1)
    light = np.clip(light, 0, None) / max(light.mean(), 1e-9)
    kernel = defocus_kernel(STEP_UM * level)
    reach = kernel.shape[0] // 2
    blurred = fftconvolve(np.pad(light, reach, mode="symmetric"), kernel, mode="valid")
    counts = with_shot_noise(exposed(np.clip(blurred, 0, None), PHOTOELECTRONS), random)
    return saturated(with_offset(with_read_noise(counts, READ_NOISE, random), GAIN, OFFSET), BITS)


def simulated(fields: Mapping[str, NDArray[Any]], seed: int) -> list[Sample]:
    """Return each field at all levels of defocus."""
    random = np.random.default_rng(seed)
    return [
        Sample(name, defocused(field, level, random), level <= LAST_LEVEL_IN_FOCUS, float(level))
        for name, field in fields.items()
        for level in range(LEVELS)
    ]


def held_out_fields(model: Model) -> dict[str, NDArray[Any]]:
    """Return the fields of BBBC039 that the model was not trained on, as its card names them."""
    named = (model.card.training or {}).get("test_fields")
    if not named:
        raise SystemExit(f"the card of {model.name} does not say which fields were held out (test_fields)")
    stems = {Path(str(name)).name.removesuffix(".tif") for name in named}
    paths = [path for path in sorted(folder_of("bbbc039_nuclei").glob("*.tif")) if path.stem in stems]
    if not paths:
        raise SystemExit(f"none of the fields that the card of {model.name} holds out is in bbbc039_nuclei")
    return {path.stem: pixels_of(path) for path in paths}


def unseen(path: Path, trained: Sequence[str]) -> NDArray[Any] | None:
    """Return what the model was not trained or tuned on: all of an image, its test part, or nothing.

    An image of which parts were trained on was cut along its longer side; its last share was the test.
    """
    if not any(name == path.stem or name.startswith(f"{path.stem} (") for name in trained):
        return pixels_of(path)
    if not any(name.startswith(f"{path.stem} (") for name in trained):
        return None
    pixels = pixels_of(path)
    kept = round(max(pixels.shape) * TEST_SHARE)
    return pixels[-kept:] if pixels.shape[0] > pixels.shape[1] else pixels[:, -kept:]


def all_sets(model: Model, seed: int) -> dict[str, list[Sample]]:
    """Return all samples by the name of their set."""
    neurons, bacteria = folder_of("isl_motor_neurons"), folder_of("ecoli_phase_yfp")
    trained = [name for use in ("train", "tune") for name in model.card.training.get(f"{use}_fields", ())]
    found = {
        path.stem: unseen(path, trained)
        for path in (*neurons.glob("*_confocal_maxproj.tif"), *sorted(bacteria.glob("*_yfp_*.tif")))
    }
    fields = {name: plane for name, plane in sorted(found.items()) if plane is not None}
    stains = {name: plane for name, plane in fields.items() if name.endswith("_confocal_maxproj")}
    yfp = {name: plane for name, plane in fields.items() if "_yfp_" in name}
    return {
        "BBBC006, real": really_defocused(),
        "beads, real": beads(bead_stacks(), FIRST_DEFINITION),
        "neurons, simulated": simulated(stains, seed),
        "E. coli, simulated": simulated(yfp, seed + 1),
        THRESHOLDS_FROM: simulated(held_out_fields(model), seed + 2),
    }


def rated(samples: Sequence[Sample], model: Model, threads: int) -> Scores:
    """Rate samples with `focusqc.focus`: the lower the expected level, the sharper."""
    sharpness, verdicts = [], []
    for sample in samples:
        image = Image.from_array(sample.plane, axes="YX", name=sample.group, modality="fluorescence")
        plane = focus(image, model, threads=threads).planes[0]
        sharpness.append(-plane.expected_level)
        verdicts.append(plane.in_focus)
    return Scores(np.array(sharpness), np.array([v == "yes" for v in verdicts]), verdicts.count("uncertain"))


def measured(samples: Sequence[Sample], measure: Callable[[NDArray[Any]], float]) -> Scores:
    """Measure samples."""
    return Scores(np.array([measure(sample.plane) for sample in samples]))


def auroc(sharpness: NDArray[np.float64], sharp: NDArray[np.bool_]) -> float:
    """Return how often a sharp sample is the sharper one of a pair; ties count half."""
    from scipy.stats import rankdata

    positive, negative = int(sharp.sum()), int((~sharp).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(sharpness)[sharp].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def spearman(sharpness: NDArray[np.float64], defocus: NDArray[np.float64]) -> float:
    """Return the rank correlation of blur with defocus: 1 where a measure orders all samples rightly."""
    from scipy.stats import spearmanr

    if np.ptp(sharpness) == 0:
        return 0.0
    return float(spearmanr(-sharpness, defocus).statistic)


def f_score(found: NDArray[np.bool_], sharp: NDArray[np.bool_]) -> float:
    """Return 2 TP / (2 TP + FP + FN) of being in focus."""
    hits = int((found & sharp).sum())
    return 2 * hits / max(1, int(found.sum()) + int(sharp.sum()))


def best_threshold(sharpness: NDArray[np.float64], sharp: NDArray[np.bool_]) -> float:
    """Return the threshold with the highest F-score; where a range of them has it, its middle."""
    values = np.unique(sharpness)
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    scores = np.array([f_score(sharpness >= cut, sharp) for cut in cuts])
    best = np.flatnonzero(scores == scores.max())
    return float(cuts[best[len(best) // 2]])


def sharp_of(samples: Sequence[Sample]) -> NDArray[np.bool_]:
    return np.array([sample.sharp for sample in samples])


def f_scores(
    scores: Mapping[str, Scores], sets: Mapping[str, Sequence[Sample]]
) -> dict[str, dict[str, float]]:
    """Return F-scores by the set that the threshold is from, then by the set that is judged.

    A measure with a verdict of its own has one row, from no set.
    """
    if all(found.in_focus is not None for found in scores.values()):
        return {"": {name: f_score(scores[name].in_focus, sharp_of(sets[name])) for name in sets}}
    result: dict[str, dict[str, float]] = {}
    for source in sets:
        cut = best_threshold(scores[source].sharpness, sharp_of(sets[source]))
        result[source] = {name: f_score(scores[name].sharpness >= cut, sharp_of(sets[name])) for name in sets}
    return result


def figures_of(scores: Scores, samples: Sequence[Sample]) -> dict[str, float]:
    """Return AUROC and rank correlations of one measure on one set."""
    found = {"auroc": auroc(scores.sharpness, sharp_of(samples))}
    if any(sample.defocus is None for sample in samples):
        return found
    defocus = np.array([sample.defocus for sample in samples], np.float64)
    groups = np.array([sample.group for sample in samples])
    inner = [spearman(scores.sharpness[groups == g], defocus[groups == g]) for g in dict.fromkeys(groups)]
    return {
        **found,
        "spearman_all": spearman(scores.sharpness, defocus),
        "spearman_in_a_field": float(np.mean(inner)),
        "spearman_in_the_worst_field": float(np.min(inner)),
    }


def times_s(plane: NDArray[Any], model: Model, threads: int, repeats: int) -> dict[str, float]:
    """Return seconds per megapixel of each measure, medians after a first call."""
    megapixels = plane.size / 1e6
    image = Image.from_array(plane, axes="YX", name="timed", modality="fluorescence")
    calls: dict[str, Callable[[], object]] = {OURS: lambda: focus(image, model, threads=threads)}
    calls |= {name: lambda measure=measure: measure(plane) for name, measure in CLASSICAL.items()}
    result = {}
    for name, call in calls.items():
        call()
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
        result[name] = statistics.median(taken) / megapixels
    return result


def spearman_by_definition(
    stacks: Mapping[str, tuple[NDArray[np.float64], NDArray[Any]]], scores: Mapping[str, Scores]
) -> dict[str, dict[str, float]]:
    """Return each measure's rank correlation within a field of beads, by the definition of focus."""
    definitions = best_z_um(*next(iter(stacks.values())))
    result: dict[str, dict[str, float]] = {}
    for definition in definitions:
        samples = beads(stacks, definition)
        result[definition] = {
            name: figures_of(found, samples)["spearman_in_a_field"] for name, found in scores.items()
        }
    return result


def beads_picture(
    path: Path, stacks: Mapping[str, tuple[NDArray[np.float64], NDArray[Any]]], scores: Mapping[str, Scores]
) -> None:
    """Draw the rating of each field over z, and all measures beside it, each from 0 to 1 in its field."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    samples = beads(stacks, FIRST_DEFINITION)
    groups = np.array([sample.group for sample in samples])
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, found in scores.items():
        curves = []
        for field, (z, planes) in stacks.items():
            offset = z - best_z_um(z, planes)[FIRST_DEFINITION]
            blur = -found.sharpness[groups == field]
            if name == OURS:
                left.plot(offset, blur, marker="o", markersize=3, label=field.replace("_", " "))
            curves.append((offset, (blur - blur.min()) / max(float(np.ptp(blur)), 1e-12)))
        right.plot(
            np.mean([offset for offset, _ in curves], axis=0),
            np.mean([curve for _, curve in curves], axis=0),
            marker="o",
            markersize=3,
            linewidth=2 if name == OURS else 1,
            label=name,
        )
    left.set(ylabel="expected level", ylim=(0, LEVELS - 1), title="focusqc, four fields of beads")
    right.set(ylabel="blur, from 0 to 1 in its field", title="all measures, mean of the fields")
    for axes in (left, right):
        axes.set_xlabel("distance from focus (um)")
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Name or folder of the model.")] = "focus-fluorescence",
    cores: Annotated[int, typer.Option(min=1, help="Processor cores and threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls after the first.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the simulated camera's noise.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    picture: Annotated[Path, typer.Option(help="The picture of the beads.")] = PICTURE,
) -> None:
    used = use_cores(cores)
    found = find_model(model, task="focus")
    sets, stacks = all_sets(found, seed), bead_stacks()
    scores = {
        OURS: {name: rated(samples, found, used) for name, samples in sets.items()},
        **{
            measure: {name: measured(samples, function) for name, samples in sets.items()}
            for measure, function in CLASSICAL.items()
        },
    }
    bead_scores = {name: by_set["beads, real"] for name, by_set in scores.items()}
    timed = np.tile(sets[THRESHOLDS_FROM][0].plane, (4, 3))
    results = {
        "model": {"name": found.name, "hash": found.hash},
        "samples": {name: [int(sharp_of(s).sum()), len(s)] for name, s in sets.items()},
        "figures": {
            measure: {name: figures_of(by_set[name], sets[name]) for name in sets}
            for measure, by_set in scores.items()
        },
        "uncertain": {name: by.uncertain for name, by in scores[OURS].items()},
        "f_score": {measure: f_scores(by_set, sets) for measure, by_set in scores.items()},
        "beads_spearman_by_definition": spearman_by_definition(stacks, bead_scores),
        "beads_focus_um": {field: best_z_um(*stack) for field, stack in stacks.items()},
        "ms_per_megapixel": {
            name: 1000 * taken for name, taken in times_s(timed, found, used, repeats).items()
        },
    }
    beads_picture(picture, stacks, bead_scores)
    write_results(out, "focus_measures", report(results, used, timed.shape))
    (out / "focus_measures.json").write_text(json.dumps(_rounded(results), indent=1) + "\n", "utf-8")


def report(results: Mapping[str, Any], cores: int, timed: tuple[int, ...]) -> str:
    """Return the results as Markdown."""
    sets, figures, f = list(results["samples"]), results["figures"], results["f_score"]
    with_levels = [name for name in sets if "spearman_all" in figures[OURS][name]]
    definitions = results["beads_spearman_by_definition"]
    uncertain = ", ".join(f"{name}: {count} images" for name, count in results["uncertain"].items())

    def rows(key: str, names: Sequence[str]) -> list[list[str]]:
        return [
            [measure, *(f"{by_set[name][key]:.3f}" for name in names)] for measure, by_set in figures.items()
        ]

    fixed = [[OURS, "its own, fixed", *(f"{f[OURS][''][name]:.3f}" for name in sets)]]
    moved = [
        [measure, THRESHOLDS_FROM, *(f"{f[measure][THRESHOLDS_FROM][name]:.3f}" for name in sets)]
        for measure in CLASSICAL
    ]
    pairs = {measure: [f[measure][a][b] for a in sets for b in sets if a != b] for measure in CLASSICAL}
    own = list(f[OURS][""].values())
    transfer = [[OURS, f"{np.mean(own):.3f}", f"{min(own):.3f}"]]
    transfer += [[name, f"{np.mean(found):.3f}", f"{min(found):.3f}"] for name, found in pairs.items()]
    return "\n\n".join(
        [
            "# Focus: classical measures and focusqc",
            about(["numpy", "scipy", "openvino"], cores),
            f"`focusqc.focus` with the model {results['model']['name']!r} beside four classical measures, on "
            "the same images as they are (no resampling, no background subtracted). Sharpness by focusqc is "
            "the expected level, the lower the sharper.",
            table(
                ["set", "images", "of them sharp"],
                [[name, str(total), str(sharp)] for name, (sharp, total) in results["samples"].items()],
            ),
            "- Real: BBBC006 has sharp and strongly defocused fields. Of the beads a plane is sharp within "
            f"{float(BEAD_OPTICS.defocus_um(LAST_LEVEL_IN_FOCUS)):.1f} um of focus, which is level "
            f"{LAST_LEVEL_IN_FOCUS} in their optics (20x/0.75, {BEAD_OPTICS.pixel_size_um} um/px).\n"
            "- Simulated: sharp fields convolved with the point spread function of levels 0 to 10, then shot "
            f"and read noise ({PHOTOELECTRONS:g} photoelectrons a pixel in the mean, {READ_NOISE:g} of read "
            "noise). Sharp is level 0 to 2. Of the sets that the model learned from (all but the real ones) "
            "only what its card holds out: fields of nuclei and bacteria, strips of the field of neurons.",
            "## AUROC: sharp against blurred",
            table(["measure", *sets], rows("auroc", sets)),
            "## Spearman: blur against defocus, all images of a set together",
            table(["measure", *with_levels], rows("spearman_all", with_levels)),
            "## Spearman within each field, mean over the fields",
            "What counts for finding the best plane of one stack. The worst field of the beads by focusqc: "
            f"{figures[OURS]['beads, real']['spearman_in_the_worst_field']:.3f}.",
            table(["measure", *with_levels], rows("spearman_in_a_field", with_levels)),
            "### The beads' plane of focus",
            "None of the definitions uses a measure that is compared. The tables above use the first: far "
            "from focus the square of the radius that holds half of a bead's light grows with the square of "
            "the distance, and the apex of a parabola through all planes is the focus. A definition that "
            "names a plane puts two others at nearly each distance, which costs every measure a little. "
            "Spearman within each field:",
            table(
                ["focus by", *figures],
                [
                    [definition, *(f"{by_measure[name]:.3f}" for name in figures)]
                    for definition, by_measure in definitions.items()
                ],
            ),
            "## F-score of being in focus",
            "focusqc has one fixed cut (`focusqc.levels.in_focus`); what it calls uncertain counts as not in "
            f"focus ({uncertain}). The threshold of each classical measure is the best one on "
            f"{THRESHOLDS_FROM}; the column of that set is no test of them.",
            table(["measure", "threshold from", *sets], fixed + moved),
            "With thresholds from each of the sets in turn, applied to all the others (focusqc: its one cut "
            "on all sets):",
            table(["measure", "mean F-score", "lowest"], transfer),
            "## Time",
            f"Milliseconds per megapixel on a plane of {timed[0]}x{timed[1]} pixels (uint16, in memory); "
            "median after a first call.",
            table(
                ["measure", "ms per megapixel"],
                [[name, f"{taken:.1f}"] for name, taken in results["ms_per_megapixel"].items()],
            ),
        ]
    )


def _rounded(value: Any) -> Any:
    """Return nested results with four digits after the point."""
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(float(value), 4) if isinstance(value, float | np.floating) else value


if __name__ == "__main__":
    app()
