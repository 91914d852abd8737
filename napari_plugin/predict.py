"""The widget "Predict fluorescence": a transmitted-light layer in, one layer per label out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QToolButton,
    QWidget,
)

from insilico.options import STATISTICS, LabelOptions
from lincei.errors import LinceiError
from lincei.image import Image, open_image, remove
from lincei.model import Model, list_models, models_folder
from lincei.progress import CancelCheck, Progress, ProgressCallback
from napari_plugin import layers
from napari_plugin.background import BackgroundJob, Job
from napari_plugin.layer_chooser import LayerChooser, is_image
from napari_plugin.option_form import OptionForm
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition, command_line, keyword_arguments

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from insilico.labeling import Measurements

PREVIEW_PX = 512
# Ends the names of layers whose results are not complete; those of an earlier run stay until they are.
GROWING = "(in progress)"
# Larger ones go to the disk tile by tile.
LARGEST_SIDE_PX = 2000
# Smaller than the command's, so that a result grows and a run stops sooner; the result is the same.
_TILE_PX = 512
_OVERVIEW_PX, _OVERVIEW_BYTES = 1024, 64 * 2**20
_REFRESH_S = 0.5
_MODELS_MS = 2000
# The label's scale: 0 is background, 1 the bright end of the stain.
_LIMITS = {"sd": (0.0, 0.5), "entropy": (-4.0, 1.0)}
_WORDS = {
    "mean": "mean (the prediction)",
    "median": "median",
    "mode": "mode (most likely value)",
    "sd": "sd (uncertainty)",
    "q05": "q05 (5 % chance to lie below)",
    "q95": "q95 (5 % chance to lie above)",
    "entropy": "entropy (uncertainty)",
}
_UNCERTAINTY = ("sd", "entropy")
_CONTROLS = {
    "--pixel-size-um": '"Pixel size" above',
    "--z-step-um": '"z step" above',
    "--modality": '"Modality" above',
    "--channel": '"Channel" above',
    "--model": '"Models" above',
    "--statistics": '"Results" above',
    "--engine": '"Engine" under "More"',
}


class PredictFluorescence(Panel):
    """Predicts fluorescence from a layer; see `insilico.label`.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    """

    TITLE = "Predict fluorescence"
    HELP = (
        "Shows where stains would be in an image taken without them (phase contrast, bright field, DIC), "
        "and how sure that is."
    )
    PAGE = "docs/napari.md"
    RUN = "Predict"
    RUN_TIP = "Predict the whole image, all time points."

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self._models: dict[str, Model] = {}
        self._done: tuple[_Input, LabelOptions] | None = None
        self._measured: tuple[Any, Measurements] | None = None
        self._growth = _Growth(viewer)
        self.resources.add(self._growth.stop)

        self.layer = LayerChooser(
            viewer, self.resources, _can_be_labeled, tooltip="The image without stains, gray."
        )
        self.add_row("Image", self.layer)
        self.axes = QComboBox()
        self.add_row("Its axes", self.axes, "What the sliders of this layer are.")
        self.channel = QComboBox()
        self.add_row("Channel", self.channel, "Which channel is the image without stains.")
        self.models = CheckList("Which models predict; each brings its labels. Models that you train appear.")
        self.add_row("Models", self.models)
        self.labels = CheckList("Which stains to predict.")
        self.add_row("Labels", self.labels)
        self.statistics = CheckList("What to show of what is predicted for each pixel; one layer each.")
        self.statistics.fill({name: (_WORDS[name], "") for name in STATISTICS}, LabelOptions().statistics)
        self.add_row("Results", self.statistics)
        self.options = OptionForm(
            LabelOptions,
            self.form,
            ("pixel_size_um", "z_step_um", "modality", "engine", "threads"),
            labels={"pixel_size_um": "Pixel size (um)", "z_step_um": "z step (um)"},
            left_out={"pixel_size_um": "please enter", "z_step_um": "please enter"},
        )
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setStyleSheet("color: #d08700;")
        self.form.insertRow(self.form.rowCount() - 1, self.hint)
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("only in the viewer")
        browse = QToolButton()
        browse.setText("...")
        browse.setToolTip("Choose a folder.")
        browse.clicked.connect(self._browse)
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.folder)
        line.addWidget(browse)
        self.add_row(
            "Keep in folder",
            row,
            "Results are written there as OME-Zarr, tile by tile. Large ones always are, into a temporary "
            "folder when none is named.",
        )
        self.hide_image = QCheckBox("Hide the image when it is predicted")
        self.hide_image.setChecked(True)
        self.hide_image.setToolTip(
            "Colors are seen better alone. The eye in the layer list shows the image again."
        )
        self.form.addRow(self.hide_image)
        self.preview_button = QPushButton("Preview")
        self.preview_button.setToolTip(
            f"Predict what is in view (its middle {PREVIEW_PX} x {PREVIEW_PX} pixels at most): the same as "
            "the whole will be there."
        )
        self.preview_button.clicked.connect(lambda: self.guarded(self.preview))
        self.buttons.insertWidget(0, self.preview_button)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.results.addWidget(self.summary)

        self.layer.layer_changed.connect(self._take_layer)
        self.axes.currentIndexChanged.connect(self._take_axes)
        self.models.changed.connect(self._take_models)
        for name in ("pixel_size_um", "z_step_um"):
            self.options.widgets[name].changed.connect(self._show_hint)
        self._listed: Any = None
        self.refresh_models()
        watch = QTimer(self)
        watch.timeout.connect(self._watch_models)
        watch.start(_MODELS_MS)
        self._take_layer(self.layer.layer)

    # What the buttons do.

    def run(self) -> None:
        """Predict the whole image."""
        taken, settings = self._input(), self._settings()
        stem, folder = taken.image.name, self._folder(taken, settings)
        measured = self._new_measurements(taken)

        def job(progress: ProgressCallback, cancelled: CancelCheck) -> dict[str, Image]:
            from insilico.labeling import label_image, models_for

            models = models_for(settings, settings.model)
            run: dict[str, Any] = {
                "measurements": measured,
                "progress": progress,
                "cancelled": cancelled,
            }
            tiled = dataclasses.replace(settings, tile_px=_TILE_PX)
            if folder is None:
                return label_image(taken.image, models, tiled, **run)
            return _labeled_into(folder, stem, taken.image, models, tiled, run)

        began = time.monotonic()

        def take(results: Mapping[str, Image]) -> None:
            self._growth.stop()
            self._remove(taken, preview=True)
            self._show_results(taken, settings, results, {}, preview=False)
            if self.hide_image.isChecked():
                taken.layer.visible = False
            self._done = (taken, settings)
            self._summarize(results, time.monotonic() - began, folder)

        self._growth.begin(lambda grown: self._grow(taken, settings, grown))
        self.run_job(job, take, name="labeling", on_progress=self._take_progress)

    def preview(self) -> None:
        """Predict what is in view, of the time point that is shown."""
        taken, settings = self._input(), self._settings()
        region = layers.shown_region(taken.layer, PREVIEW_PX)
        if "T" in taken.axes:
            shown = layers.current_index(self.viewer, taken.layer, taken.axes.index("T"))
            region["T"] = slice(shown, shown + 1)
        measured = self._measurements(taken)

        def job(progress: ProgressCallback, cancelled: CancelCheck) -> dict[str, Image]:
            from insilico.labeling import label

            return label(
                taken.image,
                None,
                settings,
                region=region,
                measurements=measured,
                progress=progress,
                cancelled=cancelled,
            )

        def take(results: Mapping[str, Image]) -> None:
            self._show_results(taken, settings, results, region, preview=True)
            self._done = (taken, settings)
            self.summary.setText(_verdict(results))

        self.run_job(job, take, name="preview")

    def repetition(self) -> Repetition | None:
        """Return how the whole image is predicted in a script."""
        if self._done is None:
            return None
        taken, settings = self._done
        return _repetition(taken, settings)

    def refresh_models(self) -> None:
        """List the models that are installed; what was chosen stays so."""
        found = {model.name: model for model in list_models("label")}
        chosen = [name for name in self.models.checked() if name in found]
        if not self._models:
            chosen = [name for name in LabelOptions().model if name in found]
        before, self._models = self._models, found
        self.models.fill(
            {
                name: (
                    f"{name}: {', '.join(label.name for label in model.card.labels)}",
                    f"{model.card.description} {model.card.modality}, {model.card.z_planes} z planes.",
                )
                for name, model in found.items()
            },
            chosen or list(found)[:1],
        )
        if before != found:
            self._take_models()

    # What the controls do.

    def _take_layer(self, layer: Any) -> None:
        self.axes.blockSignals(True)
        self.axes.clear()
        if layer is not None and is_image(layer):
            for axes in self.guarded(lambda: layers.axes_choices(layer)) or ():
                self.axes.addItem(", ".join(layers.AXIS_WORDS[letter] for letter in axes), axes)
        self.axes.setEnabled(self.axes.count() > 1)
        self.axes.blockSignals(False)
        self.summary.setText("")
        self._take_axes()

    def _take_axes(self, _index: int = 0) -> None:
        layer, axes = self.layer.layer, self._axes()
        self.channel.clear()
        size_um = step_um = modality = None
        if layer is not None and axes:
            known = layers.known_fields(layer)
            if "C" in axes:
                at = axes.index("C")
                count = layers.finest(layer).shape[at]
                names = known.get("channel_names") or [f"channel {number}" for number in range(count)]
                self.channel.addItems([str(name) for name in names])
                self.channel.setCurrentIndex(layers.current_index(self.viewer, layer, at))
            size_um = self.guarded(lambda: layers.pixel_size_um(layer))
            step_um = layers.z_step_um(layer, axes)
            modality = known.get("modality")
        self.form.setRowVisible(self.channel, self.channel.count() > 1)
        self.options.set("pixel_size_um", size_um)
        self.options.set("z_step_um", step_um)
        self.form.setRowVisible(self.options.widgets["z_step_um"].native, "Z" in axes)
        if modality in (self.options.widgets["modality"].choices):  # type: ignore[attr-defined]
            self.options.set("modality", modality)
        else:
            self.options.set("modality", None)
        self._show_hint()

    def _take_models(self) -> None:
        chosen = self._chosen_models()
        names: dict[str, list[str]] = {}
        for model in chosen:
            for label in model.card.labels:
                names.setdefault(label.name, []).append(model.name)
        offered, kept = set(self.labels.names()), set(self.labels.checked())
        self.labels.fill(
            {name: (name, f"From {' and '.join(models)}.") for name, models in names.items()},
            [name for name in names if name in kept or name not in offered],
        )
        self._show_hint()

    def _show_hint(self, _value: object = None) -> None:
        """Ask for a scale that the models need and the layer does not say."""
        values, lacking = self.options.values(), []
        for model in self._chosen_models():
            card = model.card
            if values["pixel_size_um"] is None and card.pixel_size_um is not None:
                lacking.append(f"the pixel size ({card.name} works at {card.pixel_size_um:g} um)")
            if values["z_step_um"] is None and card.z_step_um is not None and "Z" in self._axes():
                lacking.append(f"the z step ({card.name} works at {card.z_step_um:g} um)")
        text = (
            f"This layer does not say {' and '.join(lacking)}. Please enter it; without it the model's own "
            "is assumed."
            if lacking and self.layer.layer is not None
            else ""
        )
        self.hint.setText(text)
        self.hint.setVisible(bool(text))

    def _watch_models(self) -> None:
        """Look for models that were trained or installed meanwhile."""
        if not self.isVisible() or self.is_busy:
            return
        listed: list[Any] = []
        with contextlib.suppress(OSError):  # one that is being written or removed
            listed = sorted((path.name, path.stat().st_mtime) for path in models_folder().iterdir())
        if self._listed is not None and listed != self._listed:
            self.refresh_models()
        self._listed = listed

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results", self.folder.text())
        if folder:
            self.folder.setText(folder)

    # What is to be done.

    def _axes(self) -> str:
        return str(self.axes.currentData() or "")

    def _chosen_models(self) -> list[Model]:
        return [self._models[name] for name in self.models.checked() if name in self._models]

    def _input(self) -> _Input:
        layer = self.layer.layer
        if layer is None:
            raise LinceiError("there is no image to predict from", "", "Open one, and choose it above.")
        axes = self._axes() or layers.axes_choices(layer)[0]
        if layer.rgb:
            raise LinceiError(
                "this is a color (RGB) image, and a gray transmitted-light image is needed",
                layer.name,
                "Export it from the microscope's software as gray, or split its channels.",
            )
        return _Input(layer, axes, layers.image_of(layer, axes))

    def _settings(self) -> LabelOptions:
        """Return what is asked for; sizes are the layer's own to the last digit unless they were changed."""
        models, labels = self.models.checked(), self.labels.checked()
        if not models:
            raise LinceiError("no model is chosen", "", 'Choose one under "Models".')
        if not labels:
            raise LinceiError("no label is chosen", "", 'Choose one under "Labels".')
        if not self.statistics.checked():
            raise LinceiError("no result is chosen", "", 'Choose one under "Results".')
        values, layer = self.options.values(), self.layer.layer
        for name, known in (
            ("pixel_size_um", layers.pixel_size_um(layer)),
            ("z_step_um", layers.z_step_um(layer, self._axes())),
        ):
            if known is not None and values[name] is not None and abs(values[name] - known) < 1e-4:
                values[name] = known
        return LabelOptions.from_mapping(
            {
                **values,
                "model": tuple(models),
                "labels": () if labels == self.labels.names() else tuple(labels),
                "statistics": tuple(self.statistics.checked()),
                "channel": str(self.channel.currentIndex()) if self.channel.count() > 1 else None,
            }
        )

    def _folder(self, taken: _Input, settings: LabelOptions) -> Path | None:
        """Return where results are written; None keeps them in memory."""
        from insilico.label_files import IN_MEMORY_BYTES

        if self.folder.text().strip():
            return Path(self.folder.text().strip()).expanduser()
        t, _, _, y, x = taken.image.shape
        labels = len(self.labels.checked()) or 1
        large = t * y * x * labels * len(settings.statistics) * 4 > IN_MEMORY_BYTES
        return Path(tempfile.mkdtemp(prefix="lincei-")) if large or max(y, x) > LARGEST_SIDE_PX else None

    def _measurements(self, taken: _Input) -> Measurements:
        """Return what is known of the whole image; nothing when it is another one, or was changed."""
        if self._measured is not None and self._measured[0] == taken.key():
            return self._measured[1]
        return self._new_measurements(taken)

    def _new_measurements(self, taken: _Input) -> Measurements:
        from insilico.labeling import Measurements

        self._measured = (taken.key(), Measurements())
        return self._measured[1]

    def run_job(
        self,
        job: Job,
        on_return: Callable[[Any], object],
        *,
        name: str = "job",
        on_progress: Callable[[Progress], object] | None = None,
    ) -> BackgroundJob:
        """Run a job; see `Panel.run_job`."""
        running = super().run_job(job, on_return, name=name, on_progress=on_progress)
        self.preview_button.setEnabled(False)
        return running

    def _end(self) -> None:
        super()._end()
        self._growth.stop()
        self.preview_button.setEnabled(True)

    def _show(self, text: str, color: str) -> None:
        """Show a sentence; where it names a flag of the command line, the control is named."""
        for flag, control in _CONTROLS.items():
            text = re.sub(rf"{flag}(?![-a-z])", control, text)
        super()._show(text, color)

    # The layers.

    def _show_results(
        self,
        taken: _Input,
        settings: LabelOptions,
        results: Mapping[str, Image],
        region: Mapping[str, slice],
        *,
        preview: bool,
        grown: _Growing | None = None,
    ) -> list[Any]:
        """Show one layer for each label and statistic; the means lie on top."""
        shown = []
        first = "mean" if "mean" in settings.statistics else settings.statistics[0]
        for statistic in sorted(results, key=list(_WORDS).index, reverse=True):
            result = results[statistic]
            for number, label in reversed(list(enumerate(result.channel_names))):
                words = [taken.layer.name, label]
                words += [statistic] if statistic != "mean" else []
                words += ["preview"] if preview else [GROWING] if grown is not None else []
                levels = [_of_label(level, number, taken.axes) for level in (result, *result.levels)]
                keywords = {
                    **_look(result.channel_colors[number], statistic),
                    # The lowest of a preview covers the image, which stays for finding one's way.
                    **(
                        {"blending": "translucent_no_depth"}
                        if preview and (statistic, number) == (first, result.shape[1] - 1)
                        else {}
                    ),
                    **_placed(taken, region, 1 if grown is None else grown.step),
                    "visible": statistic == first,
                    "metadata": {
                        layers.METADATA_KEY: {
                            "label": label,
                            "statistic": statistic,
                            "model": list(settings.model),
                            "options": settings.to_json(),
                            "modality": "fluorescence",
                            "preview": preview,
                            "predicted_from": taken.layer.name,
                            "provenance": dict(result.provenance or {}),
                        }
                    },
                }
                data = levels if len(levels) > 1 else levels[0]
                shown.append(self._put(" ".join(words), data, keywords, multiscale=len(levels) > 1))
        return shown

    def _put(self, name: str, data: Any, keywords: dict[str, Any], *, multiscale: bool) -> Any:
        """Add a layer in place of the one of this name that was predicted before."""
        selected = set(self.viewer.layers.selection)
        earlier = [layer for layer in self.viewer.layers if layer.name == name and _is_predicted(layer)]
        if len(earlier) == 1 and not multiscale and _fits(earlier[0], data, keywords):
            # A new layer is compiled and drawn anew, which without a graphics card takes most of a second.
            layer = earlier[0]
            layer.data = data
            for attribute in ("scale", "translate", "metadata", "colormap", "blending"):
                if attribute in keywords:
                    setattr(layer, attribute, keywords[attribute])
            return layer
        if earlier:
            at = self.viewer.layers.index(earlier[0])
            keywords = {**keywords, "visible": earlier[0].visible, "opacity": earlier[0].opacity}
            for layer in earlier:
                self.viewer.layers.remove(layer)
        layer = self.viewer.add_image(data, name=name, multiscale=multiscale, **keywords)
        if earlier and self.viewer.layers.index(layer) != at:
            self.viewer.layers.move(self.viewer.layers.index(layer), at)
        # The input stays chosen, for whatever else is to be done with it.
        self.viewer.layers.selection = {one for one in selected if one in self.viewer.layers} or {layer}
        return layer

    def _remove(self, taken: _Input, *, preview: bool) -> None:
        for layer in list(self.viewer.layers):
            told = layers.known_fields(layer)
            if told.get("predicted_from") == taken.layer.name and told.get("preview") is preview:
                self.viewer.layers.remove(layer)

    def _grow(self, taken: _Input, settings: LabelOptions, grown: _Growing) -> list[Any]:
        """Show a result that is being computed, coarse."""
        result = grown.template.with_(data=grown.overview)
        return self._show_results(taken, settings, {grown.statistic: result}, {}, preview=False, grown=grown)

    def _take_progress(self, update: Progress) -> None:
        self._growth.take(update)

    def _summarize(self, results: Mapping[str, Image], took_s: float, folder: Path | None) -> None:
        first = next(iter(results.values()))
        parts = [f"Predicted {', '.join(first.channel_names)} in {took_s:.0f} s.", _verdict(results)]
        parts.append("0 is the background of the stained images the model learned from, 1 their bright end.")
        if folder is not None:
            parts.append(f"The results are in {folder}.")
            if not self.folder.text().strip():
                parts.append("That is a temporary folder: copy what you want to keep.")
        self.summary.setText(" ".join(part for part in parts if part))


@dataclass(frozen=True)
class _Input:
    """A layer, what its axes are, and its pixels."""

    layer: Any
    axes: str
    image: Image

    @property
    def kept(self) -> list[int]:
        """Axes of the layer that a result has: from time on, since napari aligns layers by their last."""
        first = self.axes.index("T") if "T" in self.axes else len(self.axes) - 2
        return list(range(first, len(self.axes)))

    def key(self) -> tuple[Any, ...]:
        """Return what tells one image from another; the arrays themselves, so that they stay apart."""
        return (_Same(layers.finest(self.layer)), self.axes, self.image.pixel_size_um, self.image.z_step_um)


class _Same:
    """Equal to another of the same object only; holds it weakly where it can."""

    def __init__(self, thing: Any) -> None:
        try:
            self._get: Callable[[], Any] = weakref.ref(thing)
        except TypeError:
            self._get = lambda: thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._get() is not None and self._get() is other._get()

    __hash__ = None  # type: ignore[assignment]


class CheckList(QListWidget):
    """Names, each of which can be ticked.

    Attributes
    ----------
    changed : Signal()
        One was ticked or unticked by the user.
    """

    changed = Signal()

    def __init__(self, tooltip: str) -> None:
        super().__init__()
        self.setToolTip(tooltip)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemChanged.connect(lambda _item: self.changed.emit())

    def fill(self, entries: Mapping[str, tuple[str, str]], checked: Sequence[str]) -> None:
        """Offer entries: for each name a text and a tooltip."""
        self.blockSignals(True)
        self.clear()
        for name, (text, tooltip) in entries.items():
            item = QListWidgetItem(text, self)
            item.setData(Qt.ItemDataRole.UserRole, name)
            item.setToolTip(tooltip)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            item.setCheckState(Qt.CheckState.Checked if name in checked else Qt.CheckState.Unchecked)
        self.blockSignals(False)
        rows = min(max(len(entries), 1), 5)
        self.setFixedHeight(rows * max(self.sizeHintForRow(0), 18) + 2 * self.frameWidth() + 2)

    def names(self) -> list[str]:
        """Return all names, in their order."""
        return [str(item.data(Qt.ItemDataRole.UserRole)) for item in self._items()]

    def checked(self) -> list[str]:
        """Return the names that are ticked, in their order."""
        return [
            str(item.data(Qt.ItemDataRole.UserRole))
            for item in self._items()
            if item.checkState() == Qt.CheckState.Checked
        ]

    def check(self, names: Sequence[str]) -> None:
        """Tick these and no others."""
        for item in self._items():
            is_named = item.data(Qt.ItemDataRole.UserRole) in names
            item.setCheckState(Qt.CheckState.Checked if is_named else Qt.CheckState.Unchecked)

    def _items(self) -> list[QListWidgetItem]:
        return [self.item(row) for row in range(self.count())]


class _LabelView:
    """One label of a result that is read when it is shown: (T, Y, X), or (Y, X) of the first time.

    Parameters
    ----------
    array : array-like
        Shape (T, C, 1, Y, X).
    channel : int
        Of the label.
    axes : str
        Letters of the view's axes: T, Y, X, and others of size 1.
    """

    def __init__(self, array: Any, channel: int, axes: str) -> None:
        self._array, self._channel, self._axes = array, channel, axes
        sizes = dict(zip("TCZYX", array.shape, strict=True)) | {"C": 1, "Z": 1}
        self.shape = tuple(sizes[letter] for letter in axes)
        self.ndim = len(axes)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys = (*keys[:at], *[slice(None)] * (self.ndim - len(keys) + 1), *keys[at + 1 :])
        parts = dict(zip(self._axes, (*keys, *[slice(None)] * (self.ndim - len(keys))), strict=True))
        one = slice(self._channel, self._channel + 1)
        box = (parts.get("T", slice(0, 1)), one, slice(0, 1), parts["Y"], parts["X"])
        whole = tuple(slice(p, p + 1) if isinstance(p, (int, np.integer)) else p for p in box)
        pixels = np.asarray(self._array[whole])[:, 0, 0]
        # First to the view's axes, then what single numbers leave out.
        sizes = dict(zip("TYX", pixels.shape, strict=True))
        pixels = pixels.reshape([sizes.get(letter, 1) for letter in self._axes])
        return pixels[
            tuple(
                0
                if isinstance(parts[letter], (int, np.integer))
                else (slice(None) if letter in "TYX" else parts[letter])
                for letter in self._axes
            )
        ]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype)


def _of_label(result: Image, channel: int, axes: str) -> Any:
    """Return one label's pixels with the axes that its layer has."""
    kept = axes[axes.index("T") :] if "T" in axes else "YX"
    if not isinstance(result.data, np.ndarray):
        return _LabelView(result.data, channel, kept)
    t, _, _, y, x = result.shape
    sizes = {"T": t, "Y": y, "X": x}
    return result.data[: t if "T" in kept else 1, channel, 0].reshape(
        [sizes.get(letter, 1) for letter in kept]
    )


def _placed(taken: _Input, region: Mapping[str, slice], step: int) -> dict[str, Any]:
    """Return where a result lies; where z or channels remain as an axis, one plane stands for all of them."""
    sizes = dict(zip(taken.axes, layers.finest(taken.layer).shape, strict=False))
    offsets, steps = [], []
    for axis in taken.kept:
        letter = taken.axes[axis]
        offsets.append(float(region[letter].start) if letter in region else 0.0)
        steps.append(float(step) if letter in "YX" else 1.0 if letter == "T" else float(sizes[letter]))
    return layers.placement(taken.layer, taken.kept, offset_px=offsets, step_px=steps)


def _look(color: str, statistic: str) -> dict[str, Any]:
    """Return colormap, blending and contrast limits."""
    from napari.utils.colormaps import Colormap

    if statistic in _UNCERTAINTY:
        colormap: Any = "inferno"
    else:
        red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
        colormap = Colormap([[0, 0, 0, 1], [red, green, blue, 1]], name=f"label {color}")
    return {
        "colormap": colormap,
        "blending": "additive",
        "contrast_limits": _LIMITS.get(statistic, (0.0, 1.0)),
    }


def _can_be_labeled(layer: Any) -> bool:
    return is_image(layer) and not _is_predicted(layer)


def _fits(layer: Any, data: Any, keywords: Mapping[str, Any]) -> bool:
    """Tell whether a layer can take a new result as it is."""
    same = not layer.multiscale and layer.ndim == data.ndim and "affine" not in keywords
    return same and tuple(map(str, layer.units)) == tuple(map(str, keywords["units"]))


def _is_predicted(layer: Any) -> bool:
    return "predicted_from" in layers.known_fields(layer)


def _verdict(results: Mapping[str, Image]) -> str:
    """Say that an image looks like those that the models learned from; the opposite is a warning."""
    told = next(iter(results.values())).provenance or {}
    alike = [
        f"{model['name']} (score {model['out_of_distribution']['score']:.1f}; up to 1 is usual)"
        for model in told.get("models", ())
        if model.get("out_of_distribution") and model["out_of_distribution"]["score"] <= 1
    ]
    return f"The image looks like what these learned from: {', '.join(alike)}." if alike else ""


# Results that are written while they are shown.


class _Growing:
    """What a job writes a statistic to: the array in a file, and a coarse copy that is shown.

    Parameters
    ----------
    statistic : str
        Its name.
    template : Image
        Of the whole result.
    array : array-like
        Takes the pixels.
    count : int
        How many of these there are, which share the memory.
    """

    def __init__(self, statistic: str, template: Image, array: Any, count: int) -> None:
        self.statistic, self.template, self.array = statistic, template, array
        t, c, _, y, x = template.shape
        self.shape, self.dtype = template.shape, template.dtype
        share = math.sqrt(t * c * count * y * x * 4 / _OVERVIEW_BYTES)
        self.step = max(1, math.ceil(max(y, x) / _OVERVIEW_PX), math.ceil(share))
        self._middle = self.step // 2
        height, width = (-(-(size - self._middle) // self.step) for size in (y, x))
        self.overview = np.zeros((t, c, 1, max(1, height), max(1, width)), np.float32)

    def __getitem__(self, key: Any) -> Any:
        return self.array[key]

    def __setitem__(self, key: tuple[slice, ...], pixels: NDArray[np.float32]) -> None:
        self.array[key] = pixels
        *others, rows, columns = key
        (first_y, last_y), (first_x, last_x) = (
            [-(-(end - self._middle) // self.step) for end in (part.start, part.stop)]
            for part in (rows, columns)
        )
        first_y, first_x = max(0, first_y), max(0, first_x)
        coarse = pixels[
            ...,
            first_y * self.step + self._middle - rows.start :: self.step,
            first_x * self.step + self._middle - columns.start :: self.step,
        ]
        self.overview[(*others, slice(first_y, last_y), slice(first_x, last_x))] = coarse


class _Growth:
    """The layers of results that are being computed; they go when these are complete, or never will be."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._show: Callable[[_Growing], list[Any]] | None = None
        self._layers: list[Any] = []
        self._refreshed_s = 0.0

    def begin(self, show: Callable[[_Growing], list[Any]]) -> None:
        self._show = show

    def take(self, update: Progress) -> None:
        """Show what has begun to grow, and what has been added."""
        if self._show is None:
            return
        if isinstance(update.preview, _Growing):
            self._layers += self._show(update.preview)
        elif self._layers and time.monotonic() - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = time.monotonic()
            for layer in self._layers:
                if layer.visible:
                    layer.refresh()

    def stop(self) -> None:
        """Take away what is not complete."""
        self._show = None
        while self._layers:
            with contextlib.suppress(Exception):  # of a viewer that is gone, or a layer that was removed
                self._viewer.layers.remove(self._layers.pop())


def _labeled_into(
    folder: Path,
    stem: str,
    image: Image,
    models: Sequence[Model],
    settings: LabelOptions,
    run: Mapping[str, Any],
) -> dict[str, Image]:
    """Label an image into OME-Zarrs of a folder; when it fails or is stopped, nothing new is left there."""
    from insilico.labeling import label_image
    from lincei.formats.ome_zarr import OmeZarrWriter, create_ome_zarr

    progress, cancelled = run["progress"], run["cancelled"]
    paths = {
        name: folder / f"{stem}{'' if name == 'mean' else f'.{name}'}.ome.zarr"
        for name in settings.statistics
    }
    writers: dict[str, OmeZarrWriter] = {}
    finished: list[Path] = []

    def store(statistic: str, template: Image) -> _Growing:
        writers[statistic] = create_ome_zarr(paths[statistic], template)
        growing = _Growing(statistic, template, writers[statistic].array, len(paths))
        progress(Progress("labeling", 0, 0, preview=growing))
        return growing

    try:
        label_image(image, models, settings, store=store, **run)
        for writer in writers.values():
            finished.append(writer.finish(progress, cancelled))
    except BaseException:
        for writer in writers.values():
            writer.abort()
        for path in finished:
            remove(path)
        if not any(folder.glob("*")):  # a temporary one, or one that was made for this
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return {name: open_image(path) for name, path in paths.items()}


def _repetition(taken: _Input, settings: LabelOptions) -> Repetition:
    """Return the same work as Python and as a command line."""
    source, name = layers.source_of(taken.layer), f"{taken.image.name}.tif"
    opened = None
    if source is not None:
        with contextlib.suppress(LinceiError):
            opened = open_image(source)
    lines = ["from insilico import label", "from lincei.image import Image, open_image, save_image", ""]
    if source is not None and opened is not None and opened.shape == taken.image.shape:
        lines += [f"image = open_image({source!r})"]
        command_input, remark = source, []
    else:
        remark = [
            f"# The layer {taken.layer.name!r} is not a file of its own: select it, then File > Save",
            f"# Selected Layers, as {name} in the folder that you work in.",
        ]
        lines += [
            *remark,
            "import tifffile",
            "",
            f"pixels = tifffile.imread({name!r})",
            f"image = Image.from_array(pixels, axes={taken.axes!r}, name={taken.image.name!r})",
        ]
        command_input = name
    arguments = ["image", *keyword_arguments(settings)]
    lines += [
        f"results = label({', '.join(arguments)})",
        "for statistic, result in results.items():",
        '    save_image(result, f"{image.name}.{statistic}.ome.tif")',
    ]
    command = command_line("label", [command_input], settings, {"--out": "predicted"})
    return Repetition("\n".join(lines) + "\n", "\n".join([*remark, command]) + "\n" if remark else command)
