"""What a new label takes: the gain over starting from scratch, more pairs, more minutes.

    python benchmarks/new_label.py --start MODEL

``MODEL`` must not have learned from what is learned here. The shipped `joint` has seen all sets at hand, so
that it would flatter itself; a stand-in that has seen neither the neurons nor the bacteria is made by

    lincei train --sets benchmarks/without_neurons_and_bacteria.toml --start-from scratch ...

(the whole command is on the result). Each training runs in a process of its own, one after the other, and its
result is kept in ``OUT/new_label.json``: a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from machine import RESULTS, about, in_fresh_process, table, use_cores, write_results

from sample_data.registry import locate

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

SCRATCH = "scratch"
# Fields of a strain that no pair is from.
BACTERIA_TEST = [f"O3_R22_phase_pos_{number:02d}.tif" for number in range(0, 21, 3)]


@dataclass(frozen=True)
class Case:
    """One training.

    Parameters
    ----------
    data : {"neurons", "bacteria"}
        What is learned: DAPI from phase contrast of motor neurons, or YFP from phase contrast of E. coli.
    pairs : int
        Image pairs that are given.
    minutes : float
        Time for training.
    from_model : bool
        Whether it starts from the model, or from scratch.
    """

    data: str
    pairs: int
    minutes: float
    from_model: bool

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        start = "model" if self.from_model else SCRATCH
        return f"{self.data}, {self.pairs} pairs, {self.minutes:g} min, {start}"


CASES = (
    Case("neurons", 1, 5, True),
    Case("neurons", 1, 5, False),
    Case("bacteria", 1, 2, True),
    Case("bacteria", 4, 2, True),
    Case("neurons", 1, 10, True),
    Case("bacteria", 1, 2, False),
    Case("bacteria", 2, 2, True),
    Case("neurons", 1, 10, False),
    Case("neurons", 1, 30, True),
)


def run(case: Case, start: str, cores: int) -> dict[str, Any]:
    """Train one case and measure it on what it was not trained on."""
    use_cores(cores)
    warnings.simplefilter("ignore")
    import insilico
    from insilico.evaluation import evaluate
    from insilico.pair_files import open_pairs

    with tempfile.TemporaryDirectory() as scratch:
        pairs = _pairs(case)
        model = insilico.train(
            pairs,
            Path(scratch) / "new-label",
            max_minutes=case.minutes,
            start_from=start if case.from_model else SCRATCH,
            modality="phase contrast",
            progress=lambda update: print(update.message, flush=True) if update.message else None,
        )
        figures = model.card.figures
        result = {"steps": model.card.training["steps"], "minutes": figures["minutes"]}
        if case.data == "neurons":
            measured = figures["test"]["DAPI"]
            return {**result, "pearson_r": measured["pearson_r"], "crps": measured["crps"]}
        folder = _folder("ecoli_phase_yfp")
        of_strain = open_pairs(
            f"{folder}/O3_R22_phase_pos_{{field}}.tif", [f"YFP={folder}/O3_R22_yfp_pos_{{field}}.tif"]
        )
        wanted = [pair for pair in of_strain if f"{pair.image.name}.tif" in BACTERIA_TEST]
        evaluated = evaluate(wanted, model)
        return {**result, **{name: evaluated.means("YFP")[name][0] for name in ("pearson_r", "crps")}}


def _pairs(case: Case) -> list[Any]:
    from insilico.pair_files import open_pairs

    if case.data == "neurons":
        folder = _folder("isl_motor_neurons")
        return open_pairs(f"{folder}/phase_z{{z}}.tif", [f"DAPI={folder}/dapi_confocal_maxproj.tif"])
    folder = _folder("ecoli_phase_yfp")
    every = open_pairs(
        f"{folder}/O3_delta_phase_pos_{{field}}.tif", [f"YFP={folder}/O3_delta_yfp_pos_{{field}}.tif"]
    )
    return every[:: len(every) // case.pairs][: case.pairs]


def _folder(name: str) -> Path:
    folder = locate(name)
    if folder is None:
        raise SystemExit(f"the sample data {name} are not at hand: set LINCEI_DATA")
    return folder


def report(results: dict[str, dict[str, Any]], start: str, cores: int) -> str:
    """Return the results as Markdown."""
    rows = []
    for case in sorted(CASES, key=lambda case: (case.data, case.pairs, case.minutes, case.from_model)):
        if (found := results.get(case.key)) is not None:
            rows.append(
                [
                    {"neurons": "DAPI, motor neurons", "bacteria": "YFP, E. coli"}[case.data],
                    str(case.pairs),
                    f"{case.minutes:g}",
                    "a model" if case.from_model else SCRATCH,
                    str(found["steps"]),
                    f"{found['pearson_r']:.3f}",
                    f"{found['crps']:.4f}",
                ]
            )
    return "\n".join(
        [
            "# A new label from one image pair and more",
            "",
            about(["tensorflow", "keras"], cores),
            f"- The model started from: {_described(start)}",
            "",
            table(["label", "pairs", "minutes", "start", "steps", "Pearson r", "CRPS"], rows),
            "",
            "Motor neurons: the pair is one field, of which the upper part is trained on and a strip at the "
            "other end (rows 874 to 1023), beyond a guard band, is measured on. E. coli: pairs of strain "
            f"delta, measured on {len(BACTERIA_TEST)} fields of strain R22, mean over fields. One training "
            "each: differences of 0.01 or 0.02 mean nothing.",
        ]
    )


def _described(start: str) -> str:
    from lincei.model import find_model

    card = find_model(start, task="label").card
    return f"`{card.training.get('command') or start}` (sets: {', '.join(card.training.get('sets', []))})"


@app.command()
def main(
    start: Annotated[str, typer.Option(help="Name or folder of the model to start from.")],
    cores: Annotated[int, typer.Option(help="Processor cores to use.")] = 2,
    only: Annotated[str, typer.Option(help="Run only the cases whose name has this in it.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = RESULTS,
) -> None:
    """Train each case that has no result yet, and write the table."""
    file = out / "new_label.json"
    results = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for case in CASES:
        if case.key in results or only not in case.key:
            continue
        print(case.key, flush=True)
        results[case.key] = in_fresh_process(run, case, start, cores)
        file.write_text(json.dumps(results, indent=1), "utf-8")
        write_results(out, "new_label", report(results, start, cores))
    write_results(out, "new_label", report(results, start, cores))


if __name__ == "__main__":
    app()
