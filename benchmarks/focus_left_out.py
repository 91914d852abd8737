"""How well focus is rated on cells and microscopes that were never trained on: each set left out in turn.

LINCEI_DATA=... python benchmarks/focus_left_out.py --minutes 8

Each training runs `lincei train-focus` as the shipped model's did, but for the set that is left out and the
time. A training that an earlier run finished is not done again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import RESULTS, about, table, write_results

from focusqc.focus_image import FLUORESCENCE_MODEL
from lincei.model import find_model
from lincei.model_card import CARD_FILE, METRICS_FILE, Card
from sample_data.registry import locate

# Name of a set: its folder, the pattern to train on, and the names and patterns to measure on.
SETS = {
    "nuclei": (
        "bbbc039_nuclei",
        "IXMtest_{well}_s*.tif",
        {"BBBC039 nuclei, 20x": "IXMtest_*.tif"},
    ),
    "neurons": (
        "isl_motor_neurons",
        "*_{well}_maxproj.tif",  # one "well": the three stains show one field
        {
            "DAPI, motor neurons": "dapi_confocal_maxproj.tif",
            "MAP2, motor neurons": "map2_confocal_maxproj.tif",
            "NFH, motor neurons": "nfh_confocal_maxproj.tif",
        },
    ),
    "bacteria": ("ecoli_phase_yfp", "*_yfp_*.tif", {"YFP, E coli, fine pixels": "*_yfp_*.tif"}),
}
HEADER = ["left out", "measured on", "fields", "exact", "within one", "rank correlation", "mean error", "ECE"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def command(left_out: str, out: Path, minutes: float) -> list[str]:
    """Return the training that leaves one set out and measures on it."""
    words = ["train-focus"]
    for name, (folder, pattern, _) in SETS.items():
        if name != left_out:
            words += ["--input", f"{name}={_folder(folder)}/{pattern}"]
    folder, _, measured = SETS[left_out]
    for name, pattern in measured.items():
        words += ["--measure-on", f"{name}={_folder(folder)}/{pattern}"]
    words += ["--split-by", "well"]
    return [*words, "--max-minutes", f"{minutes:g}", "--out", str(out)]


def trained(left_out: str, folder: Path, minutes: float) -> dict[str, Any]:
    """Train without a set, unless that is done already, and return what was measured on it."""
    out = folder / f"without-{left_out}"
    if not (out / CARD_FILE).exists():
        script = "import sys; from lincei.cli import main; sys.argv[0] = 'lincei'; sys.exit(main())"
        subprocess.run([sys.executable, "-c", script, *command(left_out, out, minutes)], check=True)
    card = Card.from_folder(out)
    if card.training["options"]["max_minutes"] != minutes:
        raise SystemExit(f"{out} was trained for another time: remove it, or choose another --folder")
    figures: dict[str, Any] = json.loads((out / METRICS_FILE).read_text("utf-8"))
    return figures["other_images"]


def row(left_out: str, name: str, figures: dict[str, Any]) -> list[str]:
    """Return one line of the table."""
    return [
        left_out,
        name,
        str(figures["fields"]),
        f"{100 * figures['exact']:.1f} %",
        f"{100 * figures['within_one']:.1f} %",
        f"{figures['rank_correlation']:.3f}",
        f"{figures['mean_error']:+.2f}",
        f"{figures['calibration_error']:.3f}",
    ]


def _folder(name: str) -> Path:
    folder = locate(name)
    if folder is None:
        raise SystemExit(f"the sample data {name} are not at hand: set LINCEI_DATA")
    # As the user wrote it: a relative path stays one, and the card does not name this machine.
    base = os.environ.get("LINCEI_DATA", "")
    return Path(base) / name if base and (Path(base) / name).exists() else folder


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="Time for each training.")] = 8.0,
    folder: Annotated[Path, typer.Option(help="Where the trained models are kept.")] = Path(
        "build/benchmarks/focus_left_out"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = RESULTS,
) -> None:
    """Train with each set left out, and compare with the shipped model on its held-out images."""
    measured = {name: trained(name, folder, minutes) for name in SETS}
    rows = [row(left_out, name, f) for left_out, sets in measured.items() for name, f in sets.items()]
    shipped = find_model(FLUORESCENCE_MODEL, task="focus").card.figures
    rows.append(row("none", "held-out images of all three sets (shipped model)", shipped["test"]))
    text = [
        "# Focus of cells and microscopes never trained on",
        "",
        "Each line is measured on sharp images of a set that the network has never seen, blurred to each of",
        "the 11 levels by simulated optics and photographed by simulated cameras. The motor neurons are one",
        "field of one culture (three stains), the bacteria 63 fields of three strains at 0.16 um a pixel,",
        "the nuclei 107 fields at 0.656 um. What counts as exact supposes that the images were sharp to the",
        "pixel, which projections and finely sampled images are not. Of what a network has not seen, the",
        "order of focus is found (rank correlation), the level itself is one or two off (mean error), and",
        "it is too sure of that (ECE, the expected calibration error).",
        "",
        table(HEADER, rows),
        "",
        about(["tensorflow", "keras"]),
    ]
    write_results(out, "focus_left_out", "\n".join(text))


if __name__ == "__main__":
    app()
