"""The part of ``lincei demo`` that labels: every shipped model, on real images where they are at hand."""

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

REAL_MODEL, SIMULATED_MODEL, START_MODEL = "motor-neurons", "simulated-cells", "joint"
# A seed that the shipped model's training did not use.
SIMULATED_SEED = 1000


@dataclass(frozen=True)
class DemoField:
    """What is shown: a stack, its stains, the model for it, where it comes from, and what it is called."""

    stack: Image
    truths: dict[str, Image]
    model: Model
    origin: str
    trained_on: bool
    title: str = "In silico labeling"


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
    sections = []
    for field in demo_fields(progress, cancelled):
        results = label(
            field.stack, field.model, statistics=("mean", "sd"), progress=progress, cancelled=cancelled
        )
        files = [
            save_image(image, out / f"{field.stack.name}{'' if name == 'mean' else f'.{name}'}.ome.tif").name
            for name, image in results.items()
        ]
        sections += _live_sections(field, results, files)
        sections.append(_held_out_section(field.model))
    sections.append(
        _held_out_section(
            find_model(START_MODEL, task="label"),
            "What `lincei train` starts from when a new label is learned: one network for all sets at hand.",
        )
    )
    return sections


def demo_fields(progress: ProgressCallback | None, cancelled: CancelCheck | None) -> list[DemoField]:
    """Return a field for each model; simulated cells stand in where no real stack can be had."""
    return [
        real_field(progress, cancelled) or simulated_field(),
        *filter(None, (bacteria_field(progress, cancelled), single_cells_field(progress, cancelled))),
    ]


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


def bacteria_field(progress: ProgressCallback | None, cancelled: CancelCheck | None) -> DemoField | None:
    """Return a field of E. coli of the strain that was kept for the test, or None when it cannot be had."""
    folder = locate("ecoli_phase_yfp", progress=progress, cancelled=cancelled)
    if folder is None:
        return None
    source = dataset("ecoli_phase_yfp")
    image = open_image(folder / "O3_R22_phase_pos_09.tif", pixel_size_um=0.16, modality="phase contrast")
    return DemoField(
        image.with_(name="e_coli"),
        {"YFP": open_image(folder / "O3_R22_yfp_pos_09.tif")},
        find_model("ecoli", task="label"),
        f"Real data: live E. coli of strain R22 in phase contrast ({source.license}; {source.citation}).",
        trained_on=False,
        title="Bacteria",
    )


def single_cells_field(progress: ProgressCallback | None, cancelled: CancelCheck | None) -> DemoField | None:
    """Return some of the flow-cytometry images of Jurkat cells, or None when they cannot be had."""
    folder = locate("jurkat_flow_cytometry", progress=progress, cancelled=cancelled)
    if folder is None:
        return None
    source = dataset("jurkat_flow_cytometry")
    region = {"Y": slice(0, 400), "X": slice(0, 600)}
    light, stain = (
        open_image(folder / f"S_phase_{channel}_CP0009.tif", modality=modality)
        for channel, modality in (("Ch3", "bright field"), ("Ch4", "fluorescence"))
    )
    return DemoField(
        light.with_(data=light.read(region), name="jurkat_cells", levels=()),
        {"DNA": stain.with_(data=stain.read(region), levels=())},
        find_model("jurkat", task="label"),
        f"Real data: Jurkat cells in S phase, each 40x40 pixels, from an imaging flow cytometer in bright "
        f"field ({source.license}; {source.citation}).",
        trained_on=True,
        title="Single cells in flow",
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
            field.title,
            text=(field.origin, f"Model: {field.model.name}. Files: {', '.join(files)}."),
            figures=overview,
            columns=2,
        ),
        Section(
            f"{field.title}: label by label" if field.title != DemoField.title else "Label by label",
            figures=tuple(figures),
            tables=(Table(("label", "Pearson r here", "mean sd"), tuple(rows)),),
            notes=tuple(notes),
            columns=4,
        ),
    ]


def _held_out_section(model: Model, text: str = "") -> Section:
    """Show what the training measured on pixels it did not use."""
    import imageio.v3 as iio

    figures = model.card.figures
    rows = tuple(
        (name, f["pearson_r"], f["nrmse"], f["ssim"], f["crps"], f"{100 * f['coverage_90']:.1f} %")
        for name, f in figures["test"].items()
    )
    picture: NDArray[Any] = iio.imread(model.file(COVER_FILE))
    return Section(
        f"Measured where it was not trained: {model.name}",
        text=(*((text,) if text else ()), f"Model: {model.name}. Split: {figures['split']}."),
        figures=(
            Figure(
                np.ascontiguousarray(picture[..., :3]),
                "A part of the test: input, truth, prediction, uncertainty and error of each label.",
            ),
        ),
        tables=(Table(("label", "Pearson r", "NRMSE", "SSIM", "CRPS", "inside the 90 % interval"), rows),),
        notes=(figures["refit"],) if "refit" in figures else (),
        columns=1,
    )
