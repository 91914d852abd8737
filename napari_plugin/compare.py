"""Comparing a predicted layer with a true one: figures, where it errs, both side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox
from numpy.typing import NDArray
from qtpy.QtWidgets import QLabel, QPushButton

from lincei.errors import LinceiError
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from napari_plugin.layer_chooser import LayerChooser, is_gray
from napari_plugin.layers import (
    METADATA_KEY,
    finest,
    known_fields,
    placement,
    safe_name,
    shown_region,
    source_of,
)
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition, command_line
from napari_plugin.tables import FigureTable

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from lincei.model import Model

WHOLE, IN_VIEW = "the whole layer", "what is in view"
BY_LABEL, BY_PERCENTILES, ALIKE = "as the model's label", "by percentiles", "both alike"
# Of the truth, where no model says which: those that training takes by default.
_BACKGROUND, _BRIGHT = 1.0, 99.9
# Layers lie on one another when their corners do, to this part of a pixel.
_SAME_PLACE = 0.5
# Between the 5 % and 95 % quantiles of a logistic; its variance is (pi s)^2 / 3.
_LN_19 = float(np.log(19))
_SD_PER_SCALE = float(np.pi / np.sqrt(3))

Array = NDArray[np.float32]

# What each figure is: shown where the pointer rests on it.
MEANINGS: Mapping[str, str] = {
    "Pearson r": "Pearson correlation over all pixels: 1 is perfect, 0 is chance.",
    "nRMSE": "Root-mean-square error, as a share of the true range from background to bright: 0 is perfect.",
    "SSIM": "Structural similarity, 7x7 pixels (Wang et al. 2004); the mean over planes: 1 is perfect.",
    "PSNR (dB)": "Peak signal-to-noise ratio; higher is better.",
    "CRPS": (
        "Continuous ranked probability score, of a logistic distribution with the predicted mean and "
        "standard deviation: 0 is perfect. `lincei evaluate` takes the model's whole distribution."
    ),
    "coverage of the 90 % interval": (
        "Share of pixels whose truth lies between the 5 % and 95 % quantiles of that distribution: 0.9 is "
        "honest, less is too sure of itself, more too cautious."
    ),
    "pixels": "How many pixels were compared.",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came out of a comparison.

    Parameters
    ----------
    figures : mapping of str to float
        By the names in `MEANINGS`.
    error : ndarray
        Predicted less true, on the normalized scale, float32; of the predicted layer's shape or the region's.
    gray_value_of_0, gray_value_of_1 : float
        Gray values of the true layer that are 0 and 1 on that scale.
    notes : tuple of str
        What the reader should know.
    """

    figures: Mapping[str, float]
    error: Array
    gray_value_of_0: float
    gray_value_of_1: float
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is compared; it holds no layer.

    Parameters
    ----------
    predicted, true, sd : array-like
        Axes (..., Y, X), alike; ``true`` may have one axis (z) more before y, which is projected to its
        maximum; ``sd`` may be None.
    names : tuple of str
        Of the predicted and the true layer, for sentences.
    region : tuple of slice
        Rows and columns.
    scale : str
        `BY_LABEL`, `BY_PERCENTILES` or `ALIKE`.
    background, bright : float
        Percentiles of the truth that are 0 and 1.
    curve : str
        Of the label's scale (`insilico.label_curve`).
    """

    predicted: Any
    true: Any
    sd: Any
    names: tuple[str, str]
    region: tuple[slice, slice]
    scale: str
    background: float
    bright: float
    curve: str = "linear"


class Compare(Panel):
    """Compare a predicted layer with a true one."""

    TITLE = "Compare predicted with true"
    HELP = "Measures how well a predicted layer agrees with the stain really imaged, and shows where not."
    PAGE = "docs/napari.md"
    RUN = "Compare"
    RUN_TIP = "Measure the agreement and add a layer with the error."

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self.predicted_layer = LayerChooser(
            viewer, self.resources, is_gray, tooltip='What was predicted: a layer of "Predict fluorescence".'
        )
        self.true_layer = LayerChooser(
            viewer,
            self.resources,
            is_gray,
            tooltip="The stain that was really imaged, pixel on pixel. Of a z-stack, its maximum is taken.",
        )
        self.sd_layer = LayerChooser(
            viewer,
            self.resources,
            is_gray,
            none="(none)",
            tooltip="The predicted standard deviation, if there is one: then the uncertainty is tested, too.",
        )
        self.add_row("Predicted", self.predicted_layer)
        self.add_row("True", self.true_layer)
        self.add_row("Uncertainty (sd)", self.sd_layer)
        self.region = ComboBox(value=WHOLE, choices=(WHOLE, IN_VIEW))
        self.add_row("Compare", self.region.native, "All pixels, or only those that are in view now.")
        self.scale = ComboBox(value=BY_PERCENTILES, choices=(BY_LABEL, BY_PERCENTILES, ALIKE))
        self.add_row(
            "Scale",
            self.scale.native,
            "How the two come to one scale, of 0 (background) to 1 (bright). A prediction of lincei is on it "
            "already: the true layer is scaled by the percentiles that its model was trained with "
            f"({BY_LABEL!r}) or those below ({BY_PERCENTILES!r}). {ALIKE.capitalize()}: two layers with the "
            "same kind of gray values. Nothing is fitted to the prediction.",
        )
        self.background = FloatSpinBox(value=_BACKGROUND, min=0, max=99.9, step=0.1)
        self.bright = FloatSpinBox(value=_BRIGHT, min=0.1, max=100, step=0.1)
        self.add_row(
            "Background (percentile)",
            self.background.native,
            "Percentile of the true layer that counts as 0.",
        )
        self.add_row(
            "Bright (percentile)", self.bright.native, "Percentile of the true layer that counts as 1."
        )
        self.side_by_side = CheckBox(value=False, text="")
        self.add_row(
            "Side by side", self.side_by_side.native, "Set the layers beside one another (napari's grid)."
        )
        self.scale.changed.connect(self._offer_percentiles)
        self.predicted_layer.layer_changed.connect(self._follow_prediction)
        self.side_by_side.changed.connect(self._arrange)

        self.comparison: Comparison | None = None
        self.error_layer: Any = None
        self._repetition: Repetition | None = None
        self._compared: tuple[Any, ...] = ()
        self._shared = False
        self.table = FigureTable(("figure", "value"))
        self.table.setToolTip("Rest the pointer on a figure to read what it is.")
        self.table.hide()
        self.copy_table_button = QPushButton("Copy table")
        self.copy_table_button.setToolTip("Copy the figures; paste them into a spreadsheet.")
        self.copy_table_button.clicked.connect(lambda _checked=False: self.table.copy())
        self.copy_table_button.hide()
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.hide()
        for widget in (self.table, self.copy_table_button, self.notes):
            self.results.addWidget(widget)
        self._follow_prediction(self.predicted_layer.layer)

    # What is offered.

    def _follow_prediction(self, layer: Layer | None) -> None:
        """Fill in what a prediction tells: its scale, its standard deviation, another layer as truth."""
        known = layer is not None and _model_and_label(layer)[0] is not None
        self.scale.value = BY_LABEL if known else BY_PERCENTILES
        self._offer_percentiles()
        if layer is None:
            return
        named = [other for other in self.viewer.layers if other.name == f"{layer.name} sd"]
        self.sd_layer.choose(named[0] if named and is_gray(named[0]) else None)
        if self.true_layer.layer is layer:
            for other in reversed(self.viewer.layers):
                if other is not layer and is_gray(other) and METADATA_KEY not in other.metadata:
                    self.true_layer.choose(other)
                    break

    def _offer_percentiles(self, _value: Any = None) -> None:
        by_label = self.scale.value == BY_LABEL
        layer = self.predicted_layer.layer
        if by_label and layer is not None:
            model, index = _model_and_label(layer)
            if model is not None:
                label = model.card.labels[index]
                self.background.value = label.background_percentile or 0.0
                self.bright.value = 100.0 if label.bright_percentile is None else label.bright_percentile
        for widget in (self.background, self.bright):
            widget.enabled = not by_label

    # Comparing.

    def run(self) -> None:
        """Compare the chosen layers."""
        predicted, true, sd = self.predicted_layer.layer, self.true_layer.layer, self.sd_layer.layer
        if predicted is None or true is None:
            raise LinceiError(
                "two gray layers are needed, a predicted and a true one",
                self.TITLE,
                "Open or predict them first.",
            )
        _check_grids(predicted, true, sd)
        model, index = _model_and_label(predicted)
        if self.scale.value == BY_LABEL and model is None:
            raise LinceiError(
                "nothing says which model predicted it",
                predicted.name,
                f"Choose {BY_PERCENTILES!r} as the scale, and the percentiles that it was trained with.",
            )
        background, bright = float(self.background.value), float(self.bright.value)
        if background >= bright:
            raise LinceiError(
                f"the background percentile ({background:g}) is not below the bright one ({bright:g})",
                self.TITLE,
            )
        height, width = finest(predicted).shape[-2:]
        region = {"Y": slice(0, height), "X": slice(0, width)}
        if self.region.value == IN_VIEW:
            region = shown_region(predicted)
        task = Task(
            finest(predicted),
            finest(true),
            None if sd is None else finest(sd),
            (predicted.name, true.name),
            (region["Y"], region["X"]),
            self.scale.value,
            background,
            bright,
            model.card.labels[index].curve
            if model is not None and self.scale.value == BY_LABEL
            else "linear",
        )
        kept = tuple(range(predicted.ndim))
        offset = (*(0 for _ in kept[:-2]), region["Y"].start, region["X"].start)
        placed = placement(predicted, kept, offset_px=offset)
        note = _honest_note(predicted, true, model)
        repetition = _repetition(predicted, true, sd, task, model, index)

        def job(progress: ProgressCallback, cancelled: CancelCheck) -> Comparison:
            return compare(task, progress=progress, cancelled=cancelled)

        def show(comparison: Comparison) -> None:
            self._repetition, self._compared = repetition, (true, predicted)
            self._show_comparison(comparison, f"{task.names[0]} error", placed, note)

        self.run_job(job, show, name="compare")

    def _show_comparison(
        self, comparison: Comparison, name: str, placed: Mapping[str, Any], note: str
    ) -> None:
        from insilico.panels import ERROR_LIMIT

        self.comparison = comparison
        if self.error_layer is not None and self.error_layer in self.viewer.layers:
            self.viewer.layers.remove(self.error_layer)  # that of the comparison before
        self.error_layer = self.viewer.add_image(
            comparison.error,
            name=name,
            colormap=_error_colors(),
            contrast_limits=(-ERROR_LIMIT, ERROR_LIMIT),
            metadata={METADATA_KEY: {"compared": list(self._names())}},
            **placed,
        )
        canvas = getattr(self.viewer, "canvas", None)  # since napari 0.9
        scale_bar = canvas.overlays.scale_bar if canvas is not None else self.viewer.scale_bar
        scale_bar.visible = True
        self._arrange()
        self.table.show_rows(list(comparison.figures.items()), [MEANINGS[key] for key in comparison.figures])
        limits = f"{comparison.gray_value_of_0:.4g} and {comparison.gray_value_of_1:.4g}"
        self.notes.setText(
            "\n\n".join(
                [
                    note,
                    *comparison.notes,
                    f"Gray values {limits} of the true layer count as 0 and 1.",
                    "Error layer: orange is light predicted where there is none, blue light that was missed.",
                ]
            )
        )
        for widget in (self.table, self.copy_table_button, self.notes):
            widget.show()

    def _names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self._compared)

    def _arrange(self, _value: Any = None) -> None:
        """Set truth, prediction and error side by side, others hidden behind them, or all on one another."""
        if self.error_layer is None or self.error_layer not in self.viewer.layers:
            return
        if not self.side_by_side.value:
            if self._shared:  # a grid that the user has switched on is left alone
                self._grid.enabled = self._shared = False
            return
        shown = [layer for layer in (*self._compared, self.error_layer) if layer in self.viewer.layers]
        for layer in shown:  # the grid follows the order of the list
            self.viewer.layers.move(self.viewer.layers.index(layer), len(self.viewer.layers))
            layer.visible = True
        for layer in self.viewer.layers:
            layer.visible = layer in shown
        self._grid.stride = 1
        self._grid.shape = (1, -1)
        self._grid.enabled = self._shared = True
        self.viewer.reset_view()

    @property
    def _grid(self) -> Any:
        return getattr(self.viewer, "canvas", self.viewer).grid  # elsewhere before napari 0.9

    def repetition(self) -> Repetition | None:
        """Return how the same is measured in a script."""
        return self._repetition


def compare(
    task: Task, *, progress: ProgressCallback | None = None, cancelled: CancelCheck | None = None
) -> Comparison:
    """Measure how a prediction agrees with the truth, as `insilico.evaluate` does.

    Parameters
    ----------
    task : Task
        What is compared.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    Comparison

    Raises
    ------
    LinceiError
        When one of the layers is constant, or holds pixels that are no numbers.
    """
    from insilico.distribution import LogisticMixture
    from insilico.evaluation import DATA_RANGE
    from insilico.label_curve import curved
    from lincei.image import Image
    from lincei.metrics import coverage, nrmse, pearson_r, psnr, ssim
    from lincei.normalize import percentile_scaling

    steps, notes = 5, []

    def step(done: int, what: str) -> None:
        stop_if_cancelled(cancelled)
        report(progress, Progress("comparing", done, steps, what))

    step(0, "reading")
    rows, columns = task.region
    predicted = _planes(np.asarray(task.predicted[..., rows, columns]))
    projected = len(task.true.shape) > len(task.predicted.shape)
    # The scaling is that of the whole image, also where only a part is compared.
    whole = np.asarray(task.true[...])
    if projected:
        notes.append(f"Of {task.names[1]}, the maximum over its {whole.shape[-3]} z planes was taken.")
    stop_if_cancelled(cancelled)
    stains = _planes(whole.max(axis=-3) if projected else whole)
    for name, values in zip(task.names, (predicted, stains), strict=True):
        if not np.isfinite(values).all():
            raise LinceiError(
                "it has pixels that are no numbers (NaN or infinite)", name, "Choose a part without them."
            )
        if values.min() == values.max():
            raise LinceiError(
                "it has the same value everywhere, so there is nothing to compare",
                name,
                "Check that this is the right layer.",
            )
    step(1, "scaling")
    stack = Image.from_array(
        whole if whole.ndim > 2 else whole[np.newaxis], _axes(whole.ndim), name=task.names[1]
    )
    scaling = percentile_scaling(stack, background=task.background, bright=task.bright)
    truth = curved(scaling.apply(stains[:, rows, columns]), task.curve)
    alike = task.scale == ALIKE
    mean = scaling.apply(predicted) if alike else predicted.astype(np.float32)
    if truth.min() == truth.max():
        raise LinceiError(
            "it has the same value everywhere in this part, so there is nothing to compare",
            task.names[1],
            f"Move the view, or compare {WHOLE}.",
        )
    step(2, "measuring")
    figures = {
        "Pearson r": pearson_r(mean, truth),
        "nRMSE": nrmse(mean, truth, DATA_RANGE),
        "PSNR (dB)": psnr(mean, truth, DATA_RANGE),
    }
    step(3, "structural similarity")
    figures["SSIM"] = float(np.mean([ssim(m, t, DATA_RANGE) for m, t in zip(mean, truth, strict=True)]))
    if task.sd is not None:
        step(4, "testing the uncertainty")
        sd = _planes(np.asarray(task.sd[..., rows, columns])).astype(np.float32)
        if not np.isfinite(sd).all() or not (sd > 0).all():
            raise LinceiError(
                "it has values that are not above 0, and so is no standard deviation",
                "Uncertainty (sd)",
                "Choose the layer whose name ends with sd, or none.",
            )
        spread = sd / np.float32(_SD_PER_SCALE * (scaling.unit if alike else 1))
        logistic = LogisticMixture(
            np.ones((1, *mean.shape), np.float32), mean[np.newaxis], spread[np.newaxis]
        )
        figures["CRPS"] = float(logistic.crps(truth).mean(dtype=np.float64))
        reach = spread * np.float32(_LN_19)
        figures["coverage of the 90 % interval"] = coverage(mean - reach, mean + reach, truth)
    figures["pixels"] = float(truth.size)
    stop_if_cancelled(cancelled)
    error = (mean - truth).reshape((*task.predicted.shape[:-2], *truth.shape[-2:]))
    report(progress, Progress("comparing", steps, steps))
    return Comparison(
        {name: figures[name] for name in MEANINGS if name in figures},
        error,
        scaling.zero,
        scaling.zero + scaling.unit,
        tuple(notes),
    )


def _planes(values: NDArray[Any]) -> NDArray[Any]:
    """Return the planes of an array, shape (N, Y, X)."""
    return values.reshape(-1, *values.shape[-2:])


def _axes(number: int) -> str:
    """Return letters for an array's axes; which they are makes no difference to percentiles."""
    return ("ZYX", "ZYX", "TZYX", "TCZYX")[max(0, number - 2)]


def _check_grids(predicted: Any, true: Any, sd: Any) -> None:
    """Refuse layers that do not lie pixel on pixel."""
    if predicted is true:
        raise LinceiError("predicted and true are the same layer", predicted.name, "Choose two layers.")
    shape = tuple(finest(predicted).shape)
    for other, name in ((true, "true"), (sd, "sd")):
        if other is None:
            continue
        theirs = tuple(finest(other).shape)
        fits = theirs == shape or (
            other is true and len(theirs) == len(shape) + 1 and (*theirs[:-3], *theirs[-2:]) == shape
        )
        if not fits or len(theirs) > 4:
            raise LinceiError(
                f"it has {' x '.join(map(str, theirs))} pixels, and {predicted.name} has "
                f"{' x '.join(map(str, shape))}",
                other.name,
                f"Choose the {name} layer of the same field, or crop or resize one of them.",
            )
        for corner in ((0, 0), (shape[-2] - 1, 0), (0, shape[-1] - 1)):
            here, there = (
                np.asarray(layer.data_to_world((*(0,) * (layer.ndim - 2), *corner)))[-2:]
                for layer in (predicted, other)
            )
            if np.abs(here - there).max() > _SAME_PLACE * np.abs(predicted.scale[-2:]).max():
                raise LinceiError(
                    f"it does not lie on {predicted.name}: one corner is at {_written(there)}, there at "
                    f"{_written(here)} (y, x)",
                    other.name,
                    "Give both layers the same scale and position; of a shifted image, the registered one.",
                )


def _written(place: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in place)


def _model_and_label(layer: Any) -> tuple[Model | None, int]:
    """Return the model that predicted a layer, and which of its labels it is; None where not known."""
    told = known_fields(layer)
    stated = told.get("model") or ()
    if not stated:
        return None, 0
    from lincei.model import find_model

    for name in [stated] if isinstance(stated, str) else stated:
        try:
            model = find_model(name, task="label")
        except LinceiError:  # removed since
            continue
        for index, label in enumerate(model.card.labels):
            if label.name == told.get("label"):
                return model, index
    return None, 0


def _input_of(layer: Any) -> str:
    """Return the file (or the layer) that a layer was predicted from; empty where it does not tell."""
    told = known_fields(layer)
    return str((told.get("provenance") or {}).get("source") or told.get("predicted_from") or "")


def _honest_note(predicted: Any, true: Any, model: Model | None) -> str:
    """Return what figures of a single image are worth."""
    note = "Measured on this image alone."
    if model is None:
        return f"{note} If the model was trained on it, the figures mean little."
    from insilico.evaluation import is_known

    sources = (_input_of(predicted), source_of(predicted), source_of(true))
    names = {_input_of(predicted), str(known_fields(predicted).get("predicted_from", ""))}
    names |= {Path(source).name.partition(".")[0] for source in sources if source}
    if any(is_known(model, name) for name in names):
        return (
            f"{note} A field of this name is among those that the model {model.name!r} was trained on: the "
            "figures flatter it."
        )
    if model.card.training.get("field_names"):
        return (
            f"{note} The card of {model.name!r} lists no field of this name as trained on; if it was under "
            "another, the figures mean little."
        )
    return f"{note} If the model {model.name!r} was trained on it, the figures mean little."


def _repetition(
    predicted: Any, true: Any, sd: Any, task: Task, model: Model | None, index: int
) -> Repetition:
    """Return the same comparison as Python, and as the command that evaluates the model anew."""
    notes, files = [], {}
    for key, layer in (("predicted", predicted), ("true", true), ("sd", sd)):
        if layer is None:
            continue
        source = source_of(layer)
        files[key] = source or f"{safe_name(layer.name)}.tif"
        if not source:
            notes.append(
                f"# Save the layer {layer.name!r} first as {files[key]} (File, Save Selected Layers)."
            )
    projected = len(task.true.shape) > len(task.predicted.shape)
    rows, columns = task.region
    part = f"[..., {rows.start}:{rows.stop}, {columns.start}:{columns.stop}]"
    lines = [
        "import numpy as np",
        "",
        "from insilico.label_curve import curved",
        "from lincei.image import open_image",
        "from lincei.metrics import nrmse, pearson_r, ssim",
        "from lincei.normalize import percentile_scaling",
        "",
        *notes,
        f"stain = open_image({files['true']!r})",
        f"predicted = open_image({files['predicted']!r}).read().squeeze(){part}",
        f"scaling = percentile_scaling(stain, background={task.background!r}, bright={task.bright!r})",
        f"pixels = stain.read(){'.max(axis=2)' if projected else ''}.squeeze(){part}",
        f"true = curved(scaling.apply(pixels), {task.curve!r})",
    ]
    if task.scale == ALIKE:
        lines.append("predicted = scaling.apply(predicted)")
    planes = "zip(*(a.reshape(-1, *a.shape[-2:]) for a in (predicted, true)))"
    lines += [
        'print("Pearson r", pearson_r(predicted, true))',
        'print("nRMSE", nrmse(predicted, true))',
        f'print("SSIM", np.mean([ssim(p, t) for p, t in {planes}]))',
    ]
    if sd is not None:
        unit = " / scaling.unit" if task.scale == ALIKE else ""
        lines += [
            "",
            "from insilico.distribution import LogisticMixture",
            "",
            f"sd = open_image({files['sd']!r}).read().squeeze(){part}{unit}",
            "parts = np.stack([np.ones_like(sd), predicted, sd * 3**0.5 / np.pi])",
            "logistic = LogisticMixture(*parts[:, None])",
            'print("CRPS", logistic.crps(true).mean())',
            'print("coverage", np.mean(np.abs(logistic.cdf(true) - 0.5) <= 0.45))',
        ]
    command = ""
    seen = _input_of(predicted)
    if model is not None and Path(seen).is_file():
        label = f"{model.card.labels[index].name}={files['true']}"
        flags = {
            "--input": seen,
            "--label": label,
            "--model": model.name,
            "--out": "evaluated",
        }
        command = command_line("evaluate", flags=flags)
    return Repetition("\n".join(lines) + "\n", command)


def _error_colors() -> Any:
    """Return the colors of `insilico.panels.error_panel`: blue missed, black none, orange not there."""
    from napari.utils.colormaps import Colormap

    from insilico.panels import FALSE_NEGATIVE, FALSE_POSITIVE

    colors = [(*FALSE_NEGATIVE / 255, 1), (0, 0, 0, 1), (*FALSE_POSITIVE / 255, 1)]
    return Colormap(colors, name="error")
