"""How well a field of view with tumor is told from one without, at each objective and through a camera.

LINCEI_DATA=... python benchmarks/tumor_fields.py --folds build/tumor-folds

The networks are those of the folds of the training of `tumor-breast` (`lincei train-tumor --folds-out`): each
is measured only on slides that it has not seen. The command of the training is on the model's card.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from machine import RESULTS, about, table, write_results
from numpy.typing import NDArray

from arm_overlay.annotated import AnnotatedField, resized
from arm_overlay.developing import Developing, developed, white_balance_of
from arm_overlay.field_score import field_score
from arm_overlay.frames import Frame
from arm_overlay.imaging import CameraModel, View, lit, random_view, raw_camera, recorded, seen
from arm_overlay.network import TOTAL_STRIDE
from arm_overlay.train_files import open_sets, read_set
from arm_overlay.train_options import TrainTumorOptions
from arm_overlay.tumor_model import NetworkChoice, TumorModel
from lincei.engine import Engine
from lincei.metrics import roc_auc
from lincei.tiles import mirrored

OBJECTIVES = ("4x", "10x", "20x", "40x")
# Side of the fields of view, smaller than a real one since the lymph-node tiles are 512 um wide; patches are
# taken as they are.
FIELD_UM = 256.0
# A field has tumor where this share of it or more is outlined, and none below the second.
LEAST_TUMOR, MOST_NORMAL = 0.1, 0.005
AROUND_PX = 64
DRAWS = 2000

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Scored:
    """A field of view, and what a network says of it.

    Parameters
    ----------
    kind, group : str
        Its set and its slide (or run).
    tumor : bool
        Whether there is tumor in it.
    score : float
        Its field score.
    found_share : float
        Share of it above the threshold.
    """

    kind: str
    group: str
    tumor: bool
    score: float
    found_share: float


def fields_of_view(field: AnnotatedField) -> Iterator[tuple[NDArray[np.uint8], bool]]:
    """Yield the parts of a field with their truth; those with little tumor are left out."""
    if field.patch:
        yield field.colors, bool(field.tumor.any())
        return
    side = round(FIELD_UM / field.pixel_size_um)
    height, width = field.truth.shape[:2]
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            box = (slice(top, top + side), slice(left, left + side))
            share = float(field.tumor[box].mean())
            if share >= LEAST_TUMOR or share <= MOST_NORMAL:
                yield field.colors[box], share >= LEAST_TUMOR


class SimulatedMicroscope:
    """A microscope with a camera that was balanced on empty glass, as `lincei arm` asks for."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def photographed(
        self, colors: NDArray[np.uint8], pixel_size_um: float, objective: str, to_um: float
    ) -> NDArray[np.uint8]:
        """Return a section as the loop gets it: seen, recorded behind a mosaic, developed, resampled."""
        random = self.random
        full_well = float(np.exp(random.uniform(np.log(5000), np.log(30_000))))
        camera = raw_camera("RGGB", 12, full_well_e=full_well, glass_level=0.75)
        view = random_view(random, objective)
        pixels = seen(colors, pixel_size_um, view, camera, random)
        # A mosaic has even sides.
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
        frame = Frame(pixels, 0.0, 0, bits=12, bayer="RGGB")
        camera_um = camera.pixel_size_um(objective)
        return developed(frame, self._developing(camera), camera_um / to_um)

    def _developing(self, camera: CameraModel) -> Developing:
        light = np.ones((64, 96, 3), np.float32)
        # The lamp has drifted since.
        empty = recorded(lit(light, View(vignetting=0.0)), camera, self.random)
        return white_balance_of(
            Frame(empty, 0.0, 0, bits=12, bayer="RGGB"), Developing(black_level=camera.black_level)
        )


def heat_map(engine: Engine, colors: NDArray[np.uint8], stride: int) -> NDArray[np.float32]:
    """Return the probabilities of a field's cells; around the field it is mirrored."""
    index = [
        mirrored(np.arange(-AROUND_PX, -(-n // TOTAL_STRIDE) * TOTAL_STRIDE + AROUND_PX), n)
        for n in colors.shape[:2]
    ]
    stack = np.moveaxis(colors[np.ix_(*index)], -1, 0)[None]
    (answer,) = engine.run(stack).values()
    margin = AROUND_PX // stride
    rows, columns = (max(1, n // stride) for n in colors.shape[:2])
    return answer[0, 0, margin : margin + rows, margin : margin + columns]


def scored(
    choice: NetworkChoice,
    engine: Engine,
    fields: Sequence[AnnotatedField],
    objective: str,
    microscope: SimulatedMicroscope | None,
) -> list[Scored]:
    """Score the fields of view of annotated fields at an objective, as they are or through a microscope."""
    result = []
    for field in fields:
        for colors, tumor in fields_of_view(field):
            if microscope is None:
                shown = resized(colors, field.pixel_size_um / choice.pixel_size_um)
            else:
                shown = microscope.photographed(colors, field.pixel_size_um, objective, choice.pixel_size_um)
            heat = heat_map(engine, shown, choice.model.downsampling)
            share = float((heat > choice.threshold).mean())
            result.append(Scored(field.set_name, field.group, tumor, field_score(heat), share))
    return result


def auc_with_interval(entries: Sequence[Scored], random: np.random.Generator) -> tuple[float, float, float]:
    """Return the AUC of the field scores and its 95 % interval, drawn by slide and by field within slides."""
    scores = np.array([entry.score for entry in entries])
    truth = np.array([entry.tumor for entry in entries])
    groups = sorted({entry.group for entry in entries})
    of_group = {g: np.flatnonzero([entry.group == g for entry in entries]) for g in groups}
    drawn = []
    for _ in range(DRAWS):
        chosen = [of_group[groups[i]] for i in random.integers(len(groups), size=len(groups))]
        index = np.concatenate([random.choice(members, len(members)) for members in chosen])
        drawn.append(roc_auc(scores[index], truth[index]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return roc_auc(scores, truth), float(low), float(high)


def rows_of(plain: Sequence[Scored], camera: Sequence[Scored], objective: str) -> Iterator[list[str]]:
    """Yield the lines of the table for an objective: all fields, and those of each set."""
    for kind in ("all", *dict.fromkeys(entry.kind for entry in plain)):
        chosen = [[e for e in entries if kind in ("all", e.kind)] for entries in (plain, camera)]
        if len({entry.tumor for entry in chosen[0]}) < 2:
            continue
        cells = [objective, kind, str(len(chosen[0])), str(sum(entry.tumor for entry in chosen[0]))]
        values = []
        for entries in chosen:
            value, low, high = auc_with_interval(entries, np.random.default_rng(0))
            values.append(value)
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        cells.append(f"{values[0] - values[1]:+.3f}")
        for entries in chosen:
            normal = [entry.found_share for entry in entries if not entry.tumor]
            cells.append(f"{100 * float(np.mean(normal)):.1f} %")
        yield cells


@app.command()
def main(
    folds: Annotated[Path, typer.Option(help="Folder with the networks of the folds.")] = Path(
        "build/tumor-folds"
    ),
    sets: Annotated[Path, typer.Option(help="The sets that they learned from.")] = Path(
        "arm_overlay/weights/tumor_sets.toml"
    ),
    seed: Annotated[int, typer.Option(help="Of the simulated microscope.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = RESULTS,
) -> None:
    """Score held-out fields of view at each objective, as they are and through the simulated microscope."""
    listed, of_group = open_sets(sets)
    if of_group is None:
        raise SystemExit(f"{sets} lists no folds")
    fields = [field for entry in listed for field in read_set(entry, TrainTumorOptions())]
    models = sorted(path for path in folds.iterdir() if (path / "rdf.yaml").exists())
    if not models:
        raise SystemExit(f"{folds} holds no model: train with --folds-out {folds}")
    rows: list[list[str]] = []
    for objective in OBJECTIVES:
        plain: list[Scored] = []
        camera: list[Scored] = []
        for folder in models:
            name = folder.name.rpartition("-without-")[2]
            held_out = [field for field in fields if of_group.get(field.group) == name]
            choice = TumorModel.open(folder).for_objective(objective)
            if choice is None:
                continue
            with choice.model.open_engine() as engine:
                plain += scored(choice, engine, held_out, objective, None)
                camera += scored(choice, engine, held_out, objective, SimulatedMicroscope(seed))
        rows += rows_of(plain, camera, objective)
    text = [
        "# Fields of view with and without tumor",
        "",
        f"Networks of {len(models)} folds, each measured on the slides that it has not seen. A field of",
        f"view is {FIELD_UM:g} um wide (a patch: as large as it is) and counts as tumor where",
        f"{100 * LEAST_TUMOR:g} % of it or more is outlined; those with less, but more than",
        f"{100 * MOST_NORMAL:g} %, are left out. Its score is the mean of its highest probabilities",
        "(`arm_overlay.field_score`). AUC with its 95 % interval (bootstrap by slide, and by field within",
        "slides). The simulated microscope has another focus, motion, lamp, vignetting and noise for each",
        "field, a Bayer mosaic of 12 bits, and is balanced on empty glass. False area: share of fields",
        "without tumor that is above the threshold.",
        "",
        table(
            [
                *("objective", "fields of view", "number", "with tumor", "AUC, as scanned"),
                *("AUC, through the camera", "loss", "false area", "false area, camera"),
            ],
            rows,
        ),
        "",
        "The slides are few, so the intervals are wide and say little about other laboratories. The",
        "published microscope (Nature Medicine 25:1453) reached 0.98 over many slides: no figure of these",
        "networks.",
        "",
        about(["openvino", "opencv-python-headless"]),
    ]
    write_results(out, "tumor_fields", "\n".join(text))


if __name__ == "__main__":
    app()
