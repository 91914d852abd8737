"""Make the pictures of the documents: ``LINCEI_DATA=... python docs/pictures/make.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

import insilico
from insilico.evaluation_page import calibration_plot, density_plot, error_plot
from insilico.pair_files import open_pairs
from lincei.pattern import find_inputs
from lincei.report import gray_to_rgb, map_to_rgb
from sample_data.cells import write_fields
from sample_data.registry import locate

HERE = Path(__file__).parent
REGION = np.s_[300:560, 380:690]
STATISTICS = ("mean", "q05", "q95", "median", "mode", "sd", "entropy")


def statistics_picture() -> Picture.Image:
    """Return all statistics of one label in one region of the motor-neuron field."""
    folder = locate("isl_motor_neurons")
    if folder is None:
        raise SystemExit("The motor-neuron field is not at hand: set LINCEI_DATA.")
    stack = find_inputs([str(folder / "phase_z{z}.tif")])[0].open()
    result = insilico.label(stack, "motor-neurons", labels=("NFH",), statistics=STATISTICS)
    planes = {name: image.read()[0, 0, 0][REGION] for name, image in result.items()}
    panels = {"input (plane 7)": gray_to_rgb(stack.read({"Z": slice(6, 7)})[0, 0, 0][REGION])}
    for name, plane in planes.items():
        if name == "sd":
            panels[name] = map_to_rgb(plane, 0, 0.3)
        elif name == "entropy":
            panels[name] = map_to_rgb(plane, *np.percentile(plane, [1, 99]))
        else:
            panels[name] = gray_to_rgb(plane, limits=(0, 0.7))
    return grid(panels, columns=4)


def grid(panels: dict[str, np.ndarray], columns: int) -> Picture.Image:
    """Lay panels out with their names above them."""
    height, width = next(iter(panels.values())).shape[:2]
    font, line, gap = ImageFont.load_default(size=15), 20, 6
    rows = -(-len(panels) // columns)
    canvas = Picture.new("RGB", (columns * (width + gap) + gap, rows * (height + line + gap) + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (name, panel) in enumerate(panels.items()):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + line + gap)
        draw.text((x + 2, y), name, font=font, fill="black")
        canvas.paste(Picture.fromarray(panel), (x, y + line))
    return canvas


def evaluation_picture() -> Picture.Image:
    """Return the three curves of one label of simulated cells that the model never saw."""
    with tempfile.TemporaryDirectory() as folder:
        write_fields(folder, 4, seed=5000)
        pairs = open_pairs(f"{folder}/stack_{{field}}.ome.tif", [f"nuclei={folder}/nuclei_{{field}}.ome.tif"])
        curves = insilico.evaluate(pairs, "simulated-cells").curves["nuclei"]
    plots = [plot(curves) for plot in (calibration_plot, density_plot, error_plot)]
    whole = Picture.fromarray(np.hstack(plots))
    return whole.resize((whole.width // 2, whole.height // 2), Picture.Resampling.LANCZOS)


if __name__ == "__main__":
    statistics_picture().quantize(256).save(HERE / "statistics.png", optimize=True)
    evaluation_picture().quantize(256).save(HERE / "evaluation.png", optimize=True)
