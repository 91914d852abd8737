"""How unlike their training images the shipped models find images of other kinds.

LINCEI_DATA=... python benchmarks/out_of_distribution.py
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from machine import RESULTS, about, table, write_results

from insilico.out_of_distribution import reference_of, score_image
from insilico.z_planes import plane_weights
from lincei.image import Image, open_image
from lincei.model import find_model
from lincei.normalize import standard_scaling
from lincei.pattern import find_inputs
from sample_data.cells import simulate_cells
from sample_data.registry import locate

MODELS = ("motor-neurons", "ecoli", "jurkat", "joint")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def images() -> dict[str, Image]:
    """Return images by what they show; pixel sizes are left out, as nothing is resampled here."""
    neurons, bacteria, cells, nuclei, beads = (
        _folder(name)
        for name in (
            "isl_motor_neurons",
            "ecoli_phase_yfp",
            "jurkat_flow_cytometry",
            "bbbc039_nuclei",
            "beads_zstack",
        )
    )
    noise = np.random.default_rng(0).poisson(1000, (1, 512, 512)).astype(np.uint16)
    shown = {
        "motor neurons, phase contrast": find_inputs([str(neurons / "phase_z{z}.tif")])[0].open(),
        "E. coli, phase contrast": open_image(bacteria / "O3_R22_phase_pos_15.tif"),
        "Jurkat cells, bright field": open_image(cells / "S_phase_Ch3_CP0009.tif"),
        "simulated cells, phase contrast": simulate_cells(91).stack,
        "simulated cells, DIC": simulate_cells(92, modality="DIC").stack,
        "nuclei, fluorescence": open_image(nuclei / "IXMtest_A06_s6.tif"),
        "beads, fluorescence": open_image(beads / "E07_s1_w1_step05_Z9338.18um.tif"),
        "an empty field (camera noise)": Image.from_array(noise, axes="ZYX", name="empty"),
    }
    return {name: image.with_(pixel_size_um=None, z_step_um=None) for name, image in shown.items()}


def _folder(name: str) -> Path:
    folder = locate(name)
    if folder is None:
        raise SystemExit(f"the sample data {name} are not at hand: set LINCEI_DATA")
    return folder


@app.command()
def main(out: Annotated[Path, typer.Option(help="Folder for the results.")] = RESULTS) -> None:
    """Score every image by every shipped model."""
    warnings.simplefilter("ignore")
    rows = []
    for name, image in images().items():
        row = [name]
        for model in MODELS:
            card = find_model(model, task="label").card
            reference = reference_of(card)
            assert reference is not None, f"the model {model} was written without a reference"
            weights = plane_weights(image.shape[2], card.z_planes)
            found = score_image(reference, image, standard_scaling(image), weights)
            row.append(f"{found.score:.1f}{' (empty)' if found.empty else ''}")
        rows.append(row)
    text = [
        "# Out-of-distribution scores",
        "",
        about(["numpy"]),
        "",
        "1 is the limit; images scored above it are warned of.",
        "",
        table(["image", *(f"`{model}`" for model in MODELS)], rows),
    ]
    write_results(out, "out_of_distribution", "\n".join(text))


if __name__ == "__main__":
    app()
