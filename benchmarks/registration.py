"""How well the shift between a target and its input is found: known shifts of real and simulated images.

    python benchmarks/registration.py --network-steps 250

Targets are moved by known shifts of 0 to 10 px and measured by `insilico.registration`. Beside it stand the
two ways that mislead: the peak of the plain correlation of the middle plane with the target, and, where
``--network-steps`` is given, that of the correlation of a small network's prediction with the target, after
a fit on crops turned and mirrored at random.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from machine import RESULTS, about, table, use_cores, write_results
from numpy.typing import NDArray
from scipy import fft, ndimage

from insilico.pair_files import TrainingPair
from insilico.registration import Shift, estimate_shifts
from insilico.training import Field, TrainOptions, read_fields
from lincei.image import open_image, open_stack
from sample_data.cells import simulate_cells
from sample_data.registry import locate

Array = NDArray[np.floating[Any]]

LENGTHS_PX = (1.5, 3.0, 7.0, 10.0)
ANGLES = (0.4, 3.8)  # of the shifts, in radians from down towards right
NETWORK_SHIFTS = ((0.0, 0.0), (7.0, 0.0), (-7.0, 0.0), (0.0, 7.0))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Case:
    """A field, its labels, and whether its targets are known to lie on its input."""

    title: str
    field: Field
    labels: tuple[str, ...]
    exact: bool = False


def cases() -> Iterator[Case]:
    """Yield the real fields at hand and simulated ones."""
    folder = locate("isl_motor_neurons")
    if folder is not None:
        names = ("DAPI", "MAP2", "NFH")
        stains = {name: open_image(folder / f"{name.lower()}_confocal_maxproj.tif") for name in names}
        stack = open_stack(sorted(folder.glob("phase_z*.tif")))
        yield _case("motor neurons, phase contrast", TrainingPair(stack, stains))
    folder = locate("ecoli_phase_yfp")
    for strain in ("O3_delta", "O3_R22", "O3_R124") if folder is not None else ():
        image, stain = (open_image(folder / f"{strain}_{name}_pos_00.tif") for name in ("phase", "yfp"))
        yield _case(f"E. coli {strain}, phase contrast", TrainingPair(image, {"YFP": stain}))
    folder = locate("jurkat_flow_cytometry")
    for phase in ("G1", "G2") if folder is not None else ():
        image, stain = (open_image(folder / f"{phase}_{name}_CP0008.tif") for name in ("Ch3", "Ch4"))
        yield _case(f"Jurkat {phase}, bright field", TrainingPair(image, {"DNA": stain}))
    for modality in ("phase contrast", "bright field", "DIC"):
        simulated = simulate_cells(1, modality=modality, labels=("nuclei", "cytoplasm", "membrane"))
        yield _case(f"simulated, {modality}", TrainingPair(simulated.stack, simulated.labels), exact=True)


def _case(title: str, pair: TrainingPair, *, exact: bool = False) -> Case:
    labels = tuple(pair.labels)
    planes = pair.image.shape[2]
    return Case(title, read_fields([pair], labels, planes, None, None, TrainOptions())[0], labels, exact)


def moved(field: Field, by: Sequence[float]) -> Field:
    """Return the field with its targets moved; what leaves on one side comes back on the other."""
    truth = ndimage.shift(field.truth, (*by, 0), mode="grid-wrap")
    return dataclasses.replace(field, truth=truth)


def known_shifts() -> list[tuple[float, float]]:
    """Return shifts (down, right) of several lengths and directions."""
    return [(length * np.cos(angle), length * np.sin(angle)) for length in LENGTHS_PX for angle in ANGLES]


def correlation_peak(seen: Array, target: Array) -> tuple[float, float]:
    """Return where two planes correlate most, either way, structures wider than 16 px left out."""

    def fine(plane: Array) -> Array:
        result: Array = ndimage.gaussian_filter(plane, 1.0) - ndimage.gaussian_filter(plane, 16.0)
        return result

    correlation = np.abs(fft.irfft2(fft.rfft2(fine(target)) * fft.rfft2(fine(seen)).conj(), seen.shape))
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    y, x = (at - size if at > size / 2 else at for at, size in zip(peak, seen.shape, strict=True))
    return float(y), float(x)


def network_peaks(field: Field, steps: int) -> list[tuple[float, float]]:
    """Fit a small network for so many steps, predict the field, and return each label's correlation peak.

    Crops are turned and mirrored at random; the prediction is the mean over the eight symmetries of the
    square.
    """
    from insilico.augmentation import Augmentation, random_crop
    from lincei.keras_network import import_keras

    keras = import_keras()
    from insilico.network import NetworkConfig, build_trunk

    stack = field.stack[..., [round(share * (field.stack.shape[2] - 1)) for share in (0.25, 0.5, 0.75)]]
    config = NetworkConfig(field.truth.shape[2], 3, width=16, scales=3, components=1, dropout=0.0)
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    trunk = build_trunk(config)
    network = keras.Model(trunk.inputs, trunk.output["mean"])
    network.compile(optimizer=keras.optimizers.AdamW(2e-3, clipnorm=1.0), loss="mse")
    turned = Augmentation(zoom=0, stretch=0, focus=0, fewer_planes=0, blur=0, spots=0)
    for step in range(steps):
        network.optimizer.learning_rate = 2e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        crops = [random_crop(stack, field.truth, 128, turned, random) for _ in range(4)]
        network.train_on_batch(*(np.stack(arrays) for arrays in zip(*crops, strict=True)))
    total = np.zeros_like(field.truth)
    for turns in range(4):
        for step in (1, -1):
            seen = np.rot90(stack, turns)[:, ::step]
            height, width = seen.shape[:2]
            filled = np.pad(seen, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
            predicted = np.asarray(network.predict_on_batch(filled[None]))[0, :height, :width]
            total += np.rot90(predicted[:, ::step], -turns)
    return [correlation_peak(total[..., i], field.truth[..., i]) for i in range(field.truth.shape[2])]


def words(y_px: float, x_px: float) -> str:
    """Return a shift as a cell of a table."""
    return f"{y_px:+.1f}, {x_px:+.1f}"


def rows_of(case: Case) -> list[list[str]]:
    """Measure a case with and without known shifts."""
    started = time.perf_counter()
    own = estimate_shifts([case.field], case.labels)
    seconds = time.perf_counter() - started
    found: list[tuple[tuple[float, float], list[Shift]]] = [((0.0, 0.0), own)]
    for by in known_shifts():
        found.append((by, estimate_shifts([moved(case.field, by)], case.labels)))
    rows = []
    middle = case.field.stack[..., case.field.stack.shape[2] // 2]
    for i, (label, unmoved) in enumerate(zip(case.labels, own, strict=True)):
        start = (0.0, 0.0) if case.exact else (unmoved.y_px, unmoved.x_px)
        errors = [
            float(np.hypot(of_case[i].y_px - start[0] - by[0], of_case[i].x_px - start[1] - by[1]))
            for by, of_case in found
        ]
        reliable = sum(of_case[i].reliable for _, of_case in found)
        rows.append(
            [
                case.title,
                label,
                f"{words(unmoved.y_px, unmoved.x_px)} ± {unmoved.error_px:.1f}"
                + (f" (from {unmoved.basis})" if unmoved.basis else ""),
                f"{max(errors):.2f}",
                f"{reliable} of {len(found)}",
                words(*correlation_peak(middle, case.field.truth[..., i])),
                f"{seconds:.1f} s" if i == 0 else "",
            ]
        )
    return rows


def network_rows(case: Case, steps: int) -> list[list[str]]:
    """Measure a case by a network, with shifts of 7 px."""
    found = [network_peaks(moved(case.field, by), steps) for by in NETWORK_SHIFTS]
    return [
        [case.title, label, *(words(*of_case[i]) for of_case in found)] for i, label in enumerate(case.labels)
    ]


@app.command()
def main(
    network_steps: Annotated[
        int, typer.Option(help="Steps of a network's fit, for comparison; 0 leaves it out.")
    ] = 0,
    cores: Annotated[int, typer.Option(help="Processor cores to use.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = RESULTS,
) -> None:
    """Measure known shifts."""
    warnings.simplefilter("ignore")
    use_cores(cores)
    every = list(cases())
    head = ["field", "label", "lies beside its input by", "largest error, px", "reliable"]
    found = table([*head, "plain correlation says", "time"], [row for case in every for row in rows_of(case)])
    text = f"""# Registration

{about(["numpy", "scipy"], cores)}

How far targets lie beside their inputs (px down, px right), and how well that is found when they are moved
by {", ".join(f"{length:g}" for length in (0.0, *LENGTHS_PX))} px in several directions. The error is the
largest distance from the shift that was made: for simulated images, whose targets lie on their inputs, from
the truth; for real ones from what was found before they were moved, since nobody knows where they should
lie. A label that cannot be measured by itself takes the shift of the field's others. Times are of one field
with all its labels.

{found}"""
    if network_steps:
        chosen = [case for case in every if case.title.startswith(("motor", "E. coli O3_delta"))]
        rows = [row for case in chosen for row in network_rows(case, network_steps)]
        by_network = table(["field", "label", *(f"moved by {words(*by)}" for by in NETWORK_SHIFTS)], rows)
        text += f"""

## A network instead

Where the prediction of a small network (width 16, three scales, three planes) correlates most with the
target, after {network_steps} steps on crops turned and mirrored at random. In the motor neurons' images every
structure has a bright and a dark side: from these the network learns a part of the shift, which is then not
seen.

{by_network}"""
    write_results(out, "registration", text)


if __name__ == "__main__":
    app()
