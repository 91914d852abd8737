"""The part of ``lincei demo`` that labels: a real stack when one is at hand, a simulated one otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.evaluation import scaled_truth
from insilico.labeling import label
from insilico.panels import ERROR_LIMIT, error_panel, framed, prediction_panel, truth_panel
from lincei.image import Image, open_image, save_image
from lincei.metrics import pearson_r
from lincei.model import Model, find_model
from lincei.model_card import COVER_FILE
from lincei.pattern import find_inputs
from lincei.progress import CancelCheck, ProgressCallback
from lincei.report import ColorScale, Figure, Section, Table, color_composite, gray_to_rgb, map_to_rgb
from sample_data.cells import simulate_cells
from sample_data.registry import dataset, locate

REAL_MODEL, SIMULATED_MODEL = "motor-neurons", "simulated-cells"
# A seed that the shipped model's training did not use.
SIMULATED_SEED = 1000


@dataclass(frozen=True)
class DemoField:
    """What is shown: a stack, its stains, the model for it, and where it comes from."""

    stack: Image
    truths: dict[str, Image]
    model: Model
    origin: str
    trained_on: bool


def run(
    out: Path, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> list[Section]:
    """Label a stack and show input, prediction, uncertainty and error side by side.

    Parameters
    ----------
    out : Path
        Folder for the predicted images, beside the page.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    list of Section
        For the page.
    """
    field = real_field(progress, cancelled) or simulated_field()
    results = label(
        field.stack, field.model, statistics=("mean", "sd"), progress=progress, cancelled=cancelled
    )
    files = [
        save_image(image, out / f"{field.stack.name}{'' if name == 'mean' else f'.{name}'}.ome.tif").name
        for name, image in results.items()
    ]
    sections = _live_sections(field, results, files)
    if COVER_FILE in field.model.card.files:
        sections.append(_held_out_section(field.model))
    return sections


def real_field(progress: ProgressCallback | None, cancelled: CancelCheck | None) -> DemoField | None:
    """Return the published field of motor neurons, or None when it cannot be had."""
    folder = locate("isl_motor_neurons", progress=progress, cancelled=cancelled)
    if folder is None:
        return None
    stack = find_inputs([str(folder / "phase_z{z}.tif")])[0].open(modality="phase contrast")
    source = dataset("isl_motor_neurons")
    return DemoField(
        stack.with_(name="motor_neurons"),
        {
            name: open_image(folder / f"{name.lower()}_confocal_maxproj.tif")
            for name in ("DAPI", "MAP2", "NFH")
        },
        find_model(REAL_MODEL, task="label"),
        f"Real data: human motor neurons in phase contrast, 13 planes ({source.license}; {source.citation}).",
        trained_on=True,
    )


def simulated_field() -> DemoField:
    """Return simulated cells and the small model that was trained on such."""
    cells = simulate_cells(SIMULATED_SEED)
    return DemoField(
        cells.stack,
        cells.labels,
        find_model(SIMULATED_MODEL, task="label"),
        "Simulated data: no real stack was at hand (set LINCEI_DATA to a folder with the sample data). The "
        "cells, their phase contrast and their stains come from a simulator, and so does what the model "
        "learned from.",
        trained_on=False,
    )


def _live_sections(field: DemoField, results: dict[str, Image], files: list[str]) -> list[Section]:
    """Show the stack and all labels in one picture, then each label beside its truth and its error."""
    mean, sd = (results[name].read()[0, :, 0] for name in ("mean", "sd"))
    size = field.stack.pixel_size_um
    middle = field.stack.shape[2] // 2
    plane = field.stack.read({"Z": slice(middle, middle + 1)})[0, 0, 0]
    labels = field.model.card.labels
    overview = (
        Figure(
            gray_to_rgb(plane), f"Input: plane {middle + 1} of {field.stack.shape[2]}", pixel_size_um=size
        ),
        Figure(
            color_composite(list(mean), [item.color for item in labels], limits=(0, 1)),
            "Predicted: " + ", ".join(item.name for item in labels),
            pixel_size_um=size,
        ),
    )
    figures, rows = [], []
    scale = ColorScale(0, ERROR_LIMIT, "standard deviation")
    # Four pictures share a row; half the pixels are as sharp there and load four times as fast.
    step = 2 if min(plane.shape) > 400 else 1
    small = np.s_[::step, ::step]
    small_size = None if size is None else size * step
    for i, item in enumerate(labels):
        truth = scaled_truth(field.truths[item.name], field.model, i)
        figures += [
            Figure(truth_panel(truth[small], item.color), f"{item.name}, stained", pixel_size_um=small_size),
            Figure(
                prediction_panel(mean[i][small], item.color),
                f"{item.name}, predicted",
                pixel_size_um=small_size,
            ),
            Figure(
                framed(map_to_rgb(sd[i][small], 0, ERROR_LIMIT), "#000000"),
                f"{item.name}, uncertainty",
                color_scale=scale,
            ),
            Figure(
                framed(error_panel(mean[i][small], truth[small]), "#000000"),
                f"{item.name}, error. Orange: predicted, not there; blue: there, not predicted",
            ),
        ]
        rows.append((item.name, pearson_r(mean[i], truth), float(sd[i].mean())))
    notes = ["Research use only. Predicted from transmitted light, not measured."]
    if field.trained_on:
        notes.insert(
            0,
            "The model has seen this field in training, so that the errors here flatter it. The section "
            "below shows a part that was held out, with the figures measured there.",
        )
    return [
        Section(
            "In silico labeling",
            text=(field.origin, f"Model: {field.model.name}. Files: {', '.join(files)}."),
            figures=overview,
            columns=2,
        ),
        Section(
            "Label by label",
            figures=tuple(figures),
            tables=(Table(("label", "Pearson r here", "mean sd"), tuple(rows)),),
            notes=tuple(notes),
            columns=4,
        ),
    ]


def _held_out_section(model: Model) -> Section:
    """Show what the training measured on pixels it did not use."""
    import imageio.v3 as iio

    figures = model.card.figures
    rows = tuple(
        (name, f["pearson_r"], f["nrmse"], f["ssim"], f["crps"], f"{100 * f['coverage_90']:.1f} %")
        for name, f in figures["test"].items()
    )
    picture: NDArray[Any] = iio.imread(model.file(COVER_FILE))
    return Section(
        "Measured where it was not trained",
        text=(f"Model: {model.name}. Split: {figures['split']}.",),
        figures=(
            Figure(
                np.ascontiguousarray(picture[..., :3]),
                "A part of the test strip: input, truth, prediction, uncertainty and error of each label.",
            ),
        ),
        tables=(Table(("label", "Pearson r", "NRMSE", "SSIM", "CRPS", "inside the 90 % interval"), rows),),
        notes=(figures["refit"],) if "refit" in figures else (),
        columns=1,
    )
