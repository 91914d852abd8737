"""The part of ``lincei demo`` that rates focus: real fields and a focal series, or simulated cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from focusqc.defocusing import defocused
from focusqc.focus_image import focus
from focusqc.levels import REFERENCE_PIXEL_SIZE_UM
from focusqc.overlay import write_overlay
from focusqc.page import curve_figure, rating_section
from lincei.image import Image, join_images, open_image
from lincei.model import Model, find_model
from lincei.optics import exposed, saturated, with_offset, with_read_noise, with_shot_noise
from lincei.progress import CancelCheck, ProgressCallback
from lincei.report import Section
from sample_data.cells import simulate_cells
from sample_data.registry import dataset, locate

MODEL = "focus-fluorescence"
# Levels at which a sharp image is blurred.
_LEVELS = (0, 2, 4, 6, 8, 10)
_SEED = 1000


def run(
    out: Path, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> list[Section]:
    """Rate real fields, a focal series and a field that is blurred on purpose, and show the overlays.

    Parameters
    ----------
    out : Path
        Folder for the overlays, beside the page.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    list of Section
        For the page. Without real data, one section on simulated cells.
    """
    folders = {
        name: locate(name, progress=progress, cancelled=cancelled)
        for name in ("bbbc006_focus", "beads_zstack", "bbbc039_nuclei")
    }
    # Once: to find it by name, the cards of all models are read.
    model = find_model(MODEL, task="focus")
    sections = []
    if (folder := folders["bbbc006_focus"]) is not None:
        sections.append(_fields_section(folder, out, model, progress, cancelled))
    if (folder := folders["beads_zstack"]) is not None:
        sections.append(_series_section(folder, out, model, progress, cancelled))
    if (folder := folders["bbbc039_nuclei"]) is not None:
        sections.append(_blurred_nuclei_section(folder, out, model, progress, cancelled))
    return sections or [_simulated_section(out, model, progress, cancelled)]


def _fields_section(
    folder: Path, out: Path, model: Model, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Section:
    """Show fields that were in focus beside fields that were not."""
    paths = sorted(folder.glob("sharp_*.tif"))[:3] + sorted(folder.glob("defocused_*.tif"))[:3]
    ratings = [
        focus(open_image(path, modality="fluorescence"), model, progress=progress, cancelled=cancelled)
        for path in paths
    ]
    overlays = [rating.overlay() for rating in ratings]
    files = [
        write_overlay(out / f"focus_{rating.name}.png", overlay).name
        for rating, overlay in zip(ratings, overlays, strict=True)
    ]
    return rating_section(
        "Focus quality",
        (
            _credit("bbbc006_focus"),
            "Every patch of 84x84 pixels has a border: its hue is the level of defocus, from red (sharp) to "
            "blue (blurred), and its lightness the certainty. Fields that were in focus come out red to "
            "yellow, those that really were out of focus blue, and patches with nothing in them stay dark.",
            f"Model: {model.name}. Files: {', '.join(files)}.",
        ),
        [(rating.name, overlay, rating.planes[0]) for rating, overlay in zip(ratings, overlays, strict=True)],
        notes=("Research use only. How certain a rating is belongs to it: dark patches say nothing.",),
        columns=3,
    )


def _series_section(
    folder: Path, out: Path, model: Model, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Section:
    """Show how the level of beads falls and rises along z."""
    paths = sorted(folder.glob("E07_s1_*.tif"))
    series = join_images([open_image(path, modality="fluorescence") for path in paths], "Z", "beads")
    rating = focus(series, model, progress=progress, cancelled=cancelled)
    best = rating.sharpest.get((0, 0), len(rating.planes) // 2)
    file = write_overlay(out / "focus_beads.png", rating.overlay(z=best)).name
    section = rating_section(
        "Focus quality: a focal series",
        (
            _credit("beads_zstack"),
            f"Fluorescent beads in {len(paths)} planes, 5 um apart. The expected level falls toward the best "
            f"plane and rises behind it; z = {best}, counted from 0, is named the sharpest.",
            f"Model: {model.name}. File: {file}.",
        ),
        [
            (f"z = {z}", rating.overlay(z=z), rating.plane(z=z))
            for z in sorted({0, best, len(rating.planes) - 1})
        ],
        columns=4,
    )
    return replace(section, figures=(curve_figure(rating, "Expected level of each plane."), *section.figures))


def _blurred_nuclei_section(
    folder: Path, out: Path, model: Model, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Section:
    """Blur a sharp field of nuclei by known amounts."""
    sharp = open_image(sorted(folder.glob("*.tif"))[0], modality="fluorescence")
    return _blurred_section(
        sharp,
        (
            _credit("bbbc039_nuclei"),
            "One sharp field, defocused by the point spread function of each level, with a camera's noise: "
            "the expected level follows the true one.",
        ),
        (
            "The model learned from fields of this set, maybe from this one too; its card says what was "
            "measured on fields that it never saw.",
        ),
        out,
        model,
        progress,
        cancelled,
    )


def _simulated_section(
    out: Path, model: Model, progress: ProgressCallback | None, cancelled: CancelCheck | None
) -> Section:
    """Blur simulated nuclei, where no real image is at hand."""
    sharp = simulate_cells(_SEED, labels=("nuclei",), planes=1).labels["nuclei"]
    return _blurred_section(
        sharp.with_(name="simulated_nuclei"),
        (
            "Simulated data: no real image was at hand (set LINCEI_DATA to a folder with the sample data). "
            "The nuclei come from a simulator and are defocused by the point spread function of each level, "
            "with a camera's noise: the expected level follows the true one.",
        ),
        ("Simulated nuclei are smoother than real ones: how well real ones are rated they do not show.",),
        out,
        model,
        progress,
        cancelled,
    )


def _blurred_section(
    sharp: Image,
    text: tuple[str, ...],
    notes: tuple[str, ...],
    out: Path,
    model: Model,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> Section:
    """Rate an image at known levels of defocus."""
    light = sharp.read()[0, 0, 0].astype(np.float32)
    # Without the dark level of the camera, which no lens blurs.
    light = np.clip(light - np.percentile(light, 0.1), 0, None)
    light /= light.mean()
    random = np.random.default_rng(_SEED)
    rated, files = [], []
    for level in _LEVELS:
        photons = with_shot_noise(exposed(defocused(light, level), 200.0), random)
        pixels = saturated(with_offset(with_read_noise(photons, 3.0, random), 2.0, 100.0), 16)
        image = Image.from_array(
            pixels,
            name=f"{sharp.name}_level_{level:02d}",
            modality="fluorescence",
            pixel_size_um=sharp.pixel_size_um or REFERENCE_PIXEL_SIZE_UM,
        )
        rating = focus(image, model, progress=progress, cancelled=cancelled)
        overlay = rating.overlay()
        files.append(write_overlay(out / f"focus_{rating.name}.png", overlay).name)
        rated.append((f"defocused at level {level}", overlay, rating.planes[0]))
    return rating_section(
        "Focus quality: known defocus",
        (*text, f"Model: {model.name}. Files: {', '.join(files)}."),
        rated,
        notes=notes,
        columns=3,
    )


def _credit(name: str) -> str:
    source = dataset(name)
    return f"Real data: {source.title} ({source.license}; {source.citation})."
