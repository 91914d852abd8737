"""Learn a label: from layers of transmitted light and stained layers of the same fields to a model."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from insilico.options import SCRATCH, TrainOptions
from lincei.errors import LinceiError
from lincei.model import check_target, list_models, models_folder
from napari_plugin.layer_chooser import LayerChooser, is_gray
from napari_plugin.layers import (
    AXIS_WORDS,
    axes_choices,
    image_of,
    pixel_size_um,
    safe_name,
    source_of,
    z_step_um,
)
from napari_plugin.learning_curve import LearningCurve
from napari_plugin.option_form import OptionForm
from napari_plugin.panel import Panel, Resources
from napari_plugin.repetition import Repetition, command_line, keyword_arguments
from napari_plugin.trainings import (
    FAILED,
    FINISHED,
    OWN_PYTHON,
    STOPPED,
    STOPPING,
    TRAININGS,
    LayerPair,
    StoppedTraining,
    Training,
    TrainingRequest,
    as_stopped,
    check_python,
    forget_stopped,
    has_tensorflow,
    is_stopped,
    remember_python,
    remembered_python,
    stopped_trainings,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel

# Of a network that starts from a model these are that model's.
_NETWORK_FIELDS = ("width", "scales", "components", "dropout")
_LABELS: Mapping[str, str] = {
    "modality": "Microscopy",
    "start_from": "Start from",
    "max_minutes": "Time at most (min)",
    "register": "Move the stain onto its input",
    "refit": "Train again on everything",
    "pixel_size_um": "Model's pixel size (um)",
    "channel": "Channel of the input",
    "background_percentile": "Background percentile",
    "bright_percentile": "Bright percentile",
    "rotate": "Turn and mirror crops",
}
_BEHIND_MORE = (
    "channel",
    "pixel_size_um",
    "rotate",
    "background_percentile",
    "bright_percentile",
    "data_credit",
    "license",
)
_SHOWN = ("modality", "start_from", "max_minutes", "register", "refit")
_ADVANCED = ("planes", *_NETWORK_FIELDS, "learning_rate", "crop_px", "seed")
# Between the widget's edge and what is in it.
_MARGIN_PX = 48
_NOT_KNOWN = "not known"


class LearnLabel(Panel):
    """Train a model from layers, in a worker process; see `napari_plugin.trainings`."""

    TITLE = "Learn a label"
    HELP = (
        "Learns to predict a stain from transmitted light. Give one pair of layers or more: an image without "
        "the stain, and the stained image of the same field, pixel on pixel."
    )
    PAGE = "docs/napari.md"
    RUN = "Learn"
    RUN_TIP = (
        "Train in a process of its own. It goes on when this widget is closed; closing napari stops it and "
        "keeps what was learned."
    )
    _RESUME = "Resume"

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self.training: Training | None = None
        self._detach = Resources()
        self._shown_state = ""
        self._build_pairs()
        self._build_form()
        self._build_buttons()
        self._build_results()
        self.resources.connect(viewer.layers.events.inserted, self._layer_came)
        self.add_pair()
        self.resources.add(self._detach.release)
        self.resources.connect_signal(TRAININGS.started, self._attach)
        self.resources.connect_signal(TRAININGS.models_changed, self._models_changed)
        self._models_changed()
        if TRAININGS.current is not None:
            self._attach(TRAININGS.current)
            with contextlib.suppress(LinceiError):  # its layers are not open any more, and it needs them not
                self.take_over(as_stopped(TRAININGS.current.request))

    # Controls

    def _build_pairs(self) -> None:
        self.stopped_chooser = QComboBox()
        self.stopped_chooser.activated.connect(self._choose_stopped)
        self.add_row(
            "Stopped earlier",
            self.stopped_chooser,
            "Trainings that were stopped. Choose one to fill in what it had, open its images, and resume it.",
        )
        self.pairs: list[PairRow] = []
        self._pair_box = QWidget()
        self._pair_grid = QGridLayout(self._pair_box)
        self._pair_grid.setContentsMargins(0, 0, 0, 0)
        for column, (title, stretch) in enumerate((("Input", 3), ("Stained", 3), ("Label", 2))):
            self._pair_grid.addWidget(QLabel(title), 0, column)
            self._pair_grid.setColumnStretch(column, stretch)
        self.form.addRow(self._pair_box)
        self.add_pair_button = QPushButton("Add pair")
        self.add_pair_button.setToolTip(
            "Another field, or another label of the same field. With three fields or more, whole fields are "
            "kept aside to measure on; with fewer, strips of them."
        )
        self.add_pair_button.clicked.connect(self.add_pair)
        self.form.addRow(self.add_pair_button)
        self.input_axes, self.stain_axes = QComboBox(), QComboBox()
        self.add_row("Axes of the inputs", self.input_axes, "What the axes of the input layers are.")
        self.add_row(
            "Axes of the stained",
            self.stain_axes,
            "What the axes of the stained layers are. Of several z planes the brightest is taken, pixel by "
            "pixel.",
        )
        self.input_axes.currentIndexChanged.connect(self._show_sizes)
        self.pixel_size, self.z_step = _size_box(), _size_box()
        self.add_row(
            "Pixel size (um)",
            self.pixel_size,
            "Of the inputs; from the layers' scale. State it where a layer does not know it: without it, the "
            "model cannot be used at another magnification.",
        )
        self.add_row("z step (um)", self.z_step, "Distance of the inputs' planes; from the layers' scale.")

    def _build_form(self) -> None:
        self.options: OptionForm[TrainOptions] = OptionForm(
            TrainOptions,
            self.form,
            (*_SHOWN, *_BEHIND_MORE, *_ADVANCED),
            labels=_LABELS,
            left_out={"pixel_size_um": "as the first input"},
            choices={"start_from": (TrainOptions.start_from, SCRATCH)},
            behind_more=_BEHIND_MORE,
        )
        self.options.widgets["start_from"].changed.connect(self._start_changed)
        self._start_changed()
        self.name = QLineEdit()
        self.name.setPlaceholderText("such as my-nuclei")
        self.name.textChanged.connect(self._show_name)
        self.add_row("Name of the model", self.name, "Under this name the model appears in all lists.")
        self.replace = QCheckBox("Replace the model of this name")
        self.replace.setToolTip("There is one already; it is replaced when the new one is complete.")
        self.form.addRow(self.replace)
        self.anew = QCheckBox("Start anew")
        self.anew.setToolTip("Forget the stopped training of this name and begin from the beginning.")
        self.anew.toggled.connect(self._show_name)
        self.form.addRow(self.anew)
        self.python_box = QWidget()
        row = QHBoxLayout(self.python_box)
        row.setContentsMargins(0, 0, 0, 0)
        self.python = QLineEdit(remembered_python())
        self.python.setPlaceholderText("python of an environment with TensorFlow")
        self.python.editingFinished.connect(self._check_python)
        choose = QToolButton()
        choose.setText("...")
        choose.setToolTip("Look for it.")
        choose.clicked.connect(self._choose_python)
        row.addWidget(self.python, 1)
        row.addWidget(choose)
        self.add_row(
            "Python for training",
            self.python_box,
            "The Python program of an environment with lincei and TensorFlow; this one's is used when empty.",
        )
        self._checked_python = self.python.text()
        self.form.setRowVisible(self.python_box, not has_tensorflow() or bool(self.python.text()))

    def _build_buttons(self) -> None:
        self.cancel_button.setText("Stop")
        self.cancel_button.setToolTip(
            "Stop learning and keep its state: it can be resumed, also another day."
        )
        self.finish_button = QPushButton("Finish now and keep")
        self.finish_button.setToolTip("End now: the best network so far is measured and becomes the model.")
        self.finish_button.setEnabled(False)
        self.finish_button.clicked.connect(self.finish)
        self.buttons.insertWidget(2, self.finish_button)

    def _build_results(self) -> None:
        self.registration = QLabel()
        self.registration.setStyleSheet("border: 1px solid gray; border-radius: 3px; padding: 4px;")
        self.figures = QLabel()
        self.curve = LearningCurve()
        self.preview = QLabel()
        self.preview_caption = QLabel(
            "On a region that it does not learn from: the input, the stain (teal frame), and what is "
            "predicted (purple frame)."
        )
        for label in (self.registration, self.figures, self.preview_caption):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for widget in (self.registration, self.figures, self.curve, self.preview_caption, self.preview):
            self.results.addWidget(widget)
            widget.hide()

    def add_pair(self) -> PairRow:
        """Add a row to the table of pairs, with the next layers that are in no row yet."""
        row = PairRow(self.viewer, self._pair_box)
        line = self._pair_grid.rowCount()
        for column, widget in enumerate((row.input, row.stain, row.label, row.remove_button)):
            self._pair_grid.addWidget(widget, line, column)
        self._propose(row)
        self.pairs.append(row)
        row.input.layer_changed.connect(self._show_layers)
        row.stain.layer_changed.connect(self._show_layers)
        row.remove_button.clicked.connect(lambda: self.remove_pair(row))
        self.resources.add(row.resources.release)
        self._show_layers()
        return row

    def remove_pair(self, row: PairRow) -> None:
        """Remove a row; the last one stays."""
        if len(self.pairs) > 1:
            self.pairs.remove(row)
            row.remove()
            self._show_layers()

    def _propose(self, row: PairRow) -> None:
        others = [pair for pair in self.pairs if pair is not row]
        used = {layer for pair in others for layer in (pair.input.layer, pair.stain.layer)}
        free = [layer for layer in self.viewer.layers if is_gray(layer) and layer not in used]
        # Transmitted light is what comes in stacks; of equals, the first is the input.
        free.sort(key=lambda layer: -layer.ndim)
        if len(free) > 1:
            row.input.choose(free[0])
            row.stain.choose(free[1])
        if others:
            row.set_label(others[0].label.text())

    def _layer_came(self, _event: Any) -> None:
        for row in self.pairs:
            for chooser in (row.input, row.stain):
                chooser.refill()  # napari may tell them of it after this
            if row.input.layer is row.stain.layer:  # there was only one before
                self._propose(row)

    # What the controls show

    def _show_layers(self, _layer: Any = None) -> None:
        first = self.pairs[0] if self.pairs else None
        for box, layer in (
            (self.input_axes, first.input.layer if first else None),
            (self.stain_axes, first.stain.layer if first else None),
        ):
            choices: tuple[str, ...] = ()
            if layer is not None:
                with contextlib.suppress(LinceiError):  # said when it is run
                    choices = axes_choices(layer)
            kept = box.currentData()
            if choices != tuple(box.itemData(i) for i in range(box.count())):
                box.blockSignals(True)
                box.clear()
                for axes in choices:
                    box.addItem(", ".join(AXIS_WORDS[letter] for letter in axes), axes)
                wanted = kept if kept in choices else None
                if box is self.stain_axes and self.input_axes.currentData() in choices:
                    wanted = self.input_axes.currentData()
                if wanted is not None:
                    box.setCurrentIndex(choices.index(wanted))
                box.blockSignals(False)
            self.form.setRowVisible(box, len(choices) > 1)
        for row in self.pairs:
            row.remove_button.setVisible(len(self.pairs) > 1)
        self._show_sizes()

    def _show_sizes(self, _index: int = 0) -> None:
        layers = [row.input.layer for row in self.pairs if row.input.layer is not None]
        has_z = False
        for box, size_of in (
            (self.pixel_size, lambda layer, _axes: pixel_size_um(layer)),
            (self.z_step, z_step_um),
        ):
            sizes = []
            for layer in layers:
                with contextlib.suppress(LinceiError):  # said when it is run
                    axes = self._axes(layer, self.input_axes)
                    has_z = has_z or "Z" in axes
                    if box is self.pixel_size or "Z" in axes:
                        sizes.append(size_of(layer, axes))
            known = [size for size in sizes if size]
            if known:
                box.setValue(known[0])
            elif not box.isEnabled():
                box.setValue(0)
            box.setEnabled(len(known) < len(sizes))
        self.form.setRowVisible(self.z_step, has_z)

    def _start_changed(self, _value: Any = None) -> None:
        from_scratch = self.options.widgets["start_from"].value == SCRATCH
        for name in _NETWORK_FIELDS:
            self.options.widgets[name].enabled = from_scratch

    def _models_changed(self) -> None:
        models = list_models("label")
        self._models = {model.name: model.folder for model in models}
        names = [model.name for model in models if model.has_keras()]
        chooser: Any = self.options.widgets["start_from"]
        kept = chooser.value
        chooser.choices = (*names, SCRATCH)
        chooser.value = kept if kept in chooser.choices else chooser.choices[0]
        self._show_stopped()

    def _show_stopped(self) -> None:
        self._stopped = [kept for kept in stopped_trainings() if not self._learns(kept.name)]
        self.stopped_chooser.clear()
        self.stopped_chooser.addItems(["(choose)", *(stopped.name for stopped in self._stopped)])
        self.form.setRowVisible(self.stopped_chooser, bool(self._stopped))
        self._show_name()

    def _show_name(self, _text: Any = "") -> None:
        name = self.name.text().strip()
        stopped = bool(name) and not self._learns(name) and is_stopped(name)
        self.anew.setVisible(stopped)
        exists = self._exists(name)
        if self.replace.isVisibleTo(self) and not exists:
            self.replace.setChecked(False)
        self.replace.setVisible(exists)
        self.run_button.setText(self._RESUME if stopped and not self.anew.isChecked() else self.RUN)

    def _learns(self, name: str) -> bool:
        """Tell whether a model of this name is being learned: its state is not that of a stopped training."""
        training = self.training
        return training is not None and training.is_running and training.request.name == name

    def _choose_stopped(self, index: int) -> None:
        if index > 0:
            self.guarded(lambda: self.take_over(self._stopped[index - 1]))

    def take_over(self, stopped: StoppedTraining) -> None:
        """Fill the form with what a stopped training had; its layers are found by their names.

        Raises
        ------
        LinceiError
            When a layer is not open.
        """
        self.name.setText(stopped.name)
        start = stopped.options["start_from"]
        chooser: Any = self.options.widgets["start_from"]
        if start not in chooser.choices:
            chooser.choices = (*chooser.choices, start)
        for name in self.options.widgets:
            self.options.set(name, stopped.options[name])
        layers = {layer.name: layer for layer in self.viewer.layers if is_gray(layer)}
        while len(self.pairs) > max(1, len(stopped.pairs)):
            self.remove_pair(self.pairs[-1])
        while len(self.pairs) < len(stopped.pairs):
            self.add_pair()
        missing = []
        for row, (image, stain, label) in zip(self.pairs, stopped.pairs, strict=True):
            for chooser, name in ((row.input, image), (row.stain, stain)):
                if name in layers:
                    chooser.choose(layers[name])
                else:
                    missing.append(name)
            row.set_label(label)
        if missing:
            raise LinceiError(
                f"it learned from layers that are not open: {', '.join(dict.fromkeys(missing))}",
                stopped.name,
                "Open the same images, choose them above, and resume it.",
            )

    # The interpreter

    def _choose_python(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Python of an environment with TensorFlow")
        if path:
            self.python.setText(path)
            self._check_python()

    def _check_python(self) -> None:
        path = self.python.text().strip()
        if path == self._checked_python or self.is_busy:
            return
        self._checked_python = path
        if not path:
            self.guarded(lambda: remember_python(OWN_PYTHON))
            return

        def on_return(sentence: str) -> None:
            remember_python(path)
            self.say(sentence)

        running = self.run_job(
            lambda _progress, _cancelled: check_python(path), on_return, name="check-python"
        )
        running.finished.connect(self._show_buttons)

    # Running

    def run(self) -> None:
        """Begin, or resume, the training that the form describes."""
        request = self._request()
        if self.anew.isVisibleTo(self) and self.anew.isChecked():
            forget_stopped(request.name)
            self.anew.setChecked(False)
        TRAININGS.start(request, _top(self))

    def cancel(self) -> None:
        """Stop the training; its state is kept."""
        if self.training is not None and self.training.is_running:
            self.training.stop()
        else:
            super().cancel()

    def finish(self) -> None:
        """End the training and keep its best network as the model."""
        if self.training is not None:
            self.training.finish()

    def _request(self) -> TrainingRequest:
        name = self._model_name()
        python = self.python.text().strip()
        if not python and not has_tensorflow():
            raise LinceiError(
                "napari's Python environment has no TensorFlow, which learning needs",
                "",
                "Choose the Python of another environment above, or install it here: pip install "
                "'lincei[train]'",
            )
        resume = is_stopped(name) and not self.anew.isChecked()
        changed: dict[str, Any] = {"resume": resume}
        if self.options.widgets["start_from"].value != SCRATCH:
            changed |= {field: getattr(TrainOptions, field) for field in _NETWORK_FIELDS}
        try:
            options = self.options.options(**changed)
        except LinceiError as error:
            raise LinceiError(
                *map(self._in_the_window, (error.what, error.where, error.what_to_do))
            ) from None
        return TrainingRequest(name, self._layer_pairs(), options, python)

    def _model_name(self) -> str:
        from insilico.jobs import model_target

        name = self.name.text().strip()
        if not name or "/" in name or "\\" in name:
            raise LinceiError(
                "the model needs a name", "", "Write one under “Name of the model”, such as my-nuclei."
            )
        target = model_target(name)
        if name in self._models and self._models[name].parent != models_folder().absolute():
            raise LinceiError(
                f"a model of this name lies in {self._models[name].parent}, where new ones are not written",
                name,
                "Choose another name.",
            )
        if self._exists(name) and not self.replace.isChecked():
            raise LinceiError(
                "there is a model of this name already",
                name,
                "Tick “Replace the model of this name”, or choose another name.",
            )
        check_target(target, replace=True)
        return name

    def _exists(self, name: str) -> bool:
        return bool(name) and (name in self._models or (models_folder() / name).exists())

    def _layer_pairs(self) -> tuple[LayerPair, ...]:
        found: dict[Any, LayerPair] = {}
        for number, row in enumerate(self.pairs, start=1):
            where = f"pair {number}"
            layer, stain, label = row.input.layer, row.stain.layer, row.label.text().strip()
            if layer is None or stain is None:
                raise LinceiError("an image layer is missing", where, "Open an image, or remove the pair.")
            if layer is stain:
                raise LinceiError(
                    "the input and the stained image are the same layer", where, "Choose two layers."
                )
            if not label:
                raise LinceiError("the label has no name", where, "Write one, such as nuclei.")
            pair = found.get(layer) or self._input_pair(layer)
            if label in pair.labels:
                raise LinceiError(
                    f"the label {label!r} of this input is given twice", where, "Remove one, or rename it."
                )
            image = image_of(stain, self._axes(stain, self.stain_axes))
            if image.shape[3:] != pair.image.shape[3:] or image.shape[0] != pair.image.shape[0]:
                raise LinceiError(
                    f"it is {_size_in_words(image.shape)}, and its input {layer.name} is "
                    f"{_size_in_words(pair.image.shape)}",
                    stain.name,
                    "The two must lie pixel on pixel: crop or resize one of them, or correct the axes.",
                )
            files = {key: path for key, path in ((label, self._file_of(stain)),) if path}
            found[layer] = LayerPair(
                pair.image,
                {**pair.labels, label: image},
                {**pair.layers, label: stain.name},
                {**pair.files, **files},
            )
        return tuple(found.values())

    def _input_pair(self, layer: Any) -> LayerPair:
        axes = self._axes(layer, self.input_axes)
        stated = {
            "pixel_size_um": None if pixel_size_um(layer) else self.pixel_size.value() or None,
            "z_step_um": None if "Z" not in axes or z_step_um(layer, axes) else self.z_step.value() or None,
        }
        path = self._file_of(layer)
        return LayerPair(image_of(layer, axes, **stated), {}, {"": layer.name}, {"": path} if path else {})

    def _file_of(self, layer: Any) -> str | None:
        """Return the file that a layer was opened from, when it is all that was opened from it."""
        path = source_of(layer)
        alike = [other for other in self.viewer.layers if path and source_of(other) == path]
        return path if len(alike) == 1 else None

    def _axes(self, layer: Any, box: QComboBox) -> str:
        choices = axes_choices(layer)
        return box.currentData() if box.currentData() in choices else choices[0]

    # A training that runs

    def _attach(self, training: Training) -> None:
        self._detach.release()
        self.training = training
        self._detach.connect_signal(training.changed, self._show_training)
        self._shown_state = ""
        self._warnings.clear()
        self.message.hide()
        self._show_training()

    def _show_training(self) -> None:
        training = self.training
        if training is None:
            return
        self.registration.setText(
            "<b>Registration.</b> "
            + "<br>".join(self._in_the_window(sentence) for sentence in training.registration)
        )
        self.registration.setVisible(bool(training.registration))
        self.curve.show_curves(training.losses, training.correlations)
        self.curve.setVisible(bool(training.losses))
        self.preview.setVisible(training.preview is not None)
        self.preview_caption.setVisible(training.preview is not None)
        if training.preview is not None:
            self.preview.setPixmap(_pixmap(training.preview, self.width() - _MARGIN_PX))
        self.figures.setText(_figures_in_words(training.result.get("figures", {})))
        self.figures.setVisible(bool(self.figures.text()))
        self._show_buttons()
        if training.state != self._shown_state:
            self._shown_state = training.state
            self._show_state(training)

    def _show_buttons(self) -> None:
        training = self.training
        running = training is not None and training.is_running
        self.progress_bar.setVisible(running or self.is_busy)
        self.stage.setVisible(running or self.is_busy)
        self.run_button.setEnabled(not running)
        if training is None:
            return
        learning = training.state not in (STOPPING,) and not training.is_finishing and running
        self.cancel_button.setEnabled(running and training.state != STOPPING)
        self.finish_button.setEnabled(learning and bool(training.losses))
        if not running:
            return
        if math.isfinite(training.share) and training.stage.startswith("training"):
            self.progress_bar.setRange(0, 1000)
            self.progress_bar.setValue(round(1000 * training.share))
            left_min = (1 - training.share) * training.request.options.max_minutes
            left = f"{left_min:.0f} min" if left_min > 1.5 else f"{60 * left_min:.0f} s"
            self.progress_bar.setFormat(f"{100 * training.share:.0f} %, at most {left} left")
        else:
            self.progress_bar.setRange(0, 0)
        if training.state == STOPPING:
            self.stage.setText("stopping, and keeping what was learned ...")
        elif training.is_finishing:
            self.stage.setText(f"finishing: {training.stage} ...")
        elif training.stage.startswith("training") and training.message:
            self.stage.setText(f"{training.stage}: {training.message}")
        else:
            self.stage.setText(f"{training.stage} ...")

    def _show_state(self, training: Training) -> None:
        name = training.request.name
        if training.state == STOPPED:
            kept = "Its state is kept: Resume goes on with it, also another day."
            self.say(f"“{name}” was stopped. {kept if is_stopped(name) else 'It had learned nothing yet.'}")
        elif training.state == FAILED:
            self.show_error(self._in_the_window(training.error), training.details)
        elif training.state == FINISHED:
            self.say(
                f"The model “{name}” is ready: choose it in “Predict fluorescence”."
                if training.result.get("finished", True)
                else f"The model “{name}” was trained but not exported. Run: lincei models finish {name}"
            )
            for sentence in training.warnings:
                self.add_warning(sentence)
        self._show_stopped()

    def _in_the_window(self, sentence: str) -> str:
        """Return a sentence with controls of this widget in place of the command line's flags."""
        sentence = sentence.replace("Leave out --resume to start anew", "Tick “Start anew” to begin again")

        def control(match: re.Match[str]) -> str:
            row = self.options.rows.get(match[1].replace("-", "_"))
            return f"“{row.text()}”" if row is not None else match[0]

        return re.sub(r"--([a-z][a-z-]*)", control, sentence)

    def repetition(self) -> Repetition | None:
        """Return how the training that is shown is done in a script."""
        return repetition_of(self.training.request) if self.training is not None else None

    def close_down(self) -> None:
        """Let go of everything; the training goes on."""
        self._detach.release()
        super().close_down()


class PairRow:
    """A row of the table of pairs: the input's layer, the stained one, and the label's name."""

    def __init__(self, viewer: ViewerModel, parent: QWidget) -> None:
        self.resources = Resources()
        self.input = LayerChooser(
            viewer, self.resources, is_gray, tooltip="The image without the stain: transmitted light."
        )
        self.stain = LayerChooser(
            viewer, self.resources, is_gray, tooltip="The stained image of the same field, pixel on pixel."
        )
        for chooser in (self.input, self.stain):
            chooser.setMinimumContentsLength(5)
            chooser.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.label = QLineEdit()
        self.label.setToolTip("What the stain shows, such as nuclei or DAPI.")
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.remove_button = QToolButton(parent)
        self.remove_button.setText("-")
        self.remove_button.setToolTip("Remove this pair.")
        self._proposed = ""
        self.input.layer_changed.connect(self._propose_label)
        self.stain.layer_changed.connect(self._propose_label)
        self._propose_label()

    def set_label(self, text: str) -> None:
        """Write the label's name."""
        self._proposed = ""
        self.label.setText(text)

    def remove(self) -> None:
        """Take the row's controls away."""
        self.resources.release()
        for widget in (self.input, self.stain, self.label, self.remove_button):
            widget.hide()
            widget.deleteLater()

    def _propose_label(self, _layer: Any = None) -> None:
        """Propose the stained layer's name, without what it has in common with the input's."""
        if self.stain.layer is None or self.label.text() != self._proposed:
            return
        name = self.stain.layer.name
        if self.input.layer is not None and self.input.layer is not self.stain.layer:
            common = _common_start([name, self.input.layer.name])
            name = name.removeprefix(common).strip(" _-.") or name
        self._proposed = name
        self.label.setText(name)


def repetition_of(request: TrainingRequest) -> Repetition:
    """Return a training as Python and as a command line.

    A layer that is from no file stands there as the file that it is to be saved to.
    """
    options = request.options
    arguments = keyword_arguments(options, without=("resume",))
    lines = [
        "from insilico import TrainingPair, train",
        "from lincei.image import open_image",
        "from lincei.model import models_folder",
        "",
    ]
    files = [_saved_files(pair) for pair in request.pairs]
    for pair, of_pair in zip(request.pairs, files, strict=True):
        for key, layer in pair.layers.items():
            if key not in pair.files:
                lines.append(f"# Save the layer {layer!r} as {of_pair[key]} first.")
    lines += ["pairs = ["]
    for pair, of_pair in zip(request.pairs, files, strict=True):
        stated = "".join(
            f", {name}={getattr(pair.image, name)!r}"
            for name in ("pixel_size_um", "z_step_um", "modality")
            if getattr(pair.image, name)
        )
        labels = ", ".join(f"{label!r}: open_image({of_pair[label]!r})" for label in pair.labels)
        lines.append(f"    TrainingPair(open_image({of_pair['']!r}{stated}), {{{labels}}}),")
    call = ", ".join(["pairs", f"models_folder() / {request.name!r}", *arguments])
    lines += ["]", f"model = train({call})"]
    return Repetition("\n".join([*lines, ""]), _command_of(request, files))


def _command_of(request: TrainingRequest, files: Sequence[Mapping[str, str]]) -> str:
    """Return the command line; empty where the files' names follow no pattern or hold a pattern's signs."""
    patterns = files[0] if len(files) == 1 else _patterns(files)
    if patterns is None or any(set(path) & set("*?[]{}") for of_pair in files for path in of_pair.values()):
        return ""
    words = ["--input", patterns[""]]
    for label in request.pairs[0].labels:
        words += ["--label", f"{label}={patterns[label]}"]
    target = str(models_folder() / request.name)
    options = TrainOptions.from_mapping({**request.options.to_json(), "resume": False})
    return command_line("train", words, options, {"--out": target})


def _patterns(files: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """Return patterns with ``{name}`` for what differs from pair to pair; None where that is not one part."""
    if any(set(of_pair) != set(files[0]) for of_pair in files):
        return None
    patterns: dict[str, str] = {}
    names: list[str] | None = None
    for key in files[0]:
        paths = [of_pair[key] for of_pair in files]
        before = _common_start(paths)
        rest = [path[len(before) :] for path in paths]
        after = _common_start([text[::-1] for text in rest])[::-1]
        differing = [text[: len(text) - len(after)] for text in rest]
        if (names is not None and differing != names) or not all(differing):
            return None
        if any(set(text) & {"/", "\\"} for text in differing):
            return None
        names = differing
        patterns[key] = f"{before}{{name}}{after}"
    return patterns


def _common_start(texts: Sequence[str]) -> str:
    """Return the letters that all texts begin with."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def _saved_files(pair: LayerPair) -> dict[str, str]:
    return {key: pair.files.get(key) or f"{safe_name(layer)}.ome.tif" for key, layer in pair.layers.items()}


def _figures_in_words(figures: Mapping[str, Any]) -> str:
    """Return the held-out figures of a model, a line for each label; empty before there are any."""
    measured = figures.get("test", {})
    if not measured:
        return ""
    lines = [
        f"<b>{label}</b>: correlation with the stain {_number(values['pearson_r'])}; "
        f"{_percent(values['coverage_90'])} of the pixels lie in their 90 % interval"
        for label, values in measured.items()
    ]
    return "Measured on pixels that were kept aside:<br>" + "<br>".join(lines)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.0f} %"


def _size_in_words(shape: Sequence[int]) -> str:
    times = f" at {shape[0]} times" if shape[0] != 1 else ""
    return f"{shape[4]} x {shape[3]} pixels{times}"


def _size_box() -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setDecimals(4)
    box.setRange(0, 1000)
    box.setSingleStep(0.05)
    box.setSpecialValueText(_NOT_KNOWN)
    return box


def _pixmap(picture: NDArray[np.uint8], width_px: int) -> QPixmap:
    """Return a picture for the screen, no wider than the widget."""
    height, width = picture.shape[:2]
    image = QImage(
        np.ascontiguousarray(picture).tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
    )
    pixmap = QPixmap.fromImage(image)
    if width <= width_px:
        return pixmap
    return pixmap.scaledToWidth(max(width_px, 1), Qt.TransformationMode.SmoothTransformation)


def _top(widget: QWidget) -> QWidget:
    """Return the window that a widget belongs to, also when it floats."""
    while (parent := widget.parentWidget()) is not None:
        widget = parent
    return widget
