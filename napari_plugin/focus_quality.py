"""The widget "Focus quality": how well images are in focus, patch by patch, drawn on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from focusqc.options import AUTOMATIC, FocusOptions
from lincei.errors import CancelledError, LinceiError, UsageError
from lincei.options import flag_name
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled
from napari_plugin.curve import CurvePlot
from napari_plugin.layer_chooser import is_image
from napari_plugin.layers import (
    METADATA_KEY,
    axes_choices,
    current_index,
    finest,
    image_of,
    known_fields,
    placement,
    safe_name,
    source_of,
)
from napari_plugin.option_form import OptionForm
from napari_plugin.panel import Panel, Resources
from napari_plugin.patch_table import ColumnsTable
from napari_plugin.repetition import Repetition, command_line, keyword_arguments

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from focusqc.rating import FocusRating, PlaneRating
    from lincei.image import Image

# The window stands still while napari makes rectangles, one after the other; an image of the borders is there
# at once, whatever their number.
MOST_SHAPES = 1000
# A patch that is clicked in the table is at least so large on the screen, and is made as large as the second.
_LEAST_SHOWN_PX, _SHOWN_PX = 48, 160
# A longer list of images scrolls.
_MOST_LINES = 5
_OVERLAY = "focus_borders"
_PLANE_COLUMNS = ("time", "channel", "z")
_PATCH_COLUMNS = (
    "row", "column", "x", "y", "predicted_level", "expected_level", "certainty", "in_focus", "defocus_um",
)  # fmt: skip
_TIPS: Mapping[str, str] = {
    "row": "Row of the patch, from 0 at the top.",
    "column": "Column of the patch, from 0 at the left.",
    "x": "First pixel along x.",
    "y": "First pixel along y.",
    "time": "Time point, from 0.",
    "z": "Plane, from 0.",
    "predicted_level": "The most likely level: 0 sharp to 10 blurred.",
    "expected_level": "Mean of the levels' probabilities: for sorting.",
    "certainty": "From 0 (says nothing) to 1 (sure).",
    "certainty_weighted": "From 0 (the image does not show its focus) to 1 (sure).",
    "in_focus": "yes, no, or uncertain where the certainty is below 0.2.",
    "defocus_um": "Distance from focus in um; known where pixel size and NA are.",
}
_WORDS = {"yes": "In focus", "no": "Out of focus", "uncertain": "Uncertain"}
_LABELS = {
    "channel": "Channels",
    "na": "Numerical aperture (NA)",
    "pixel_size_um": "Resample from pixel size (um)",
    "wavelength_um": "Wavelength (um)",
    "refractive_index": "Refractive index",
    "tile_count": "Patches along x, y",
    "modality": "Kind of image",
    "model": "Model",
    "threads": "Processor threads",
}


@dataclass(frozen=True)
class _Work:
    """A layer that is to be rated."""

    layer: Any
    axes: str
    image: Image
    options: FocusOptions


@dataclass(frozen=True)
class _Rated:
    """A layer that was rated.

    ``deciding`` has the planes that say whether the image is in focus, ``columns`` those of the table.
    """

    work: _Work
    rating: FocusRating
    deciding: tuple[PlaneRating, ...]
    columns: Mapping[str, NDArray[Any]]
    colors: NDArray[np.uint8]
    repeats_from_file: bool


@dataclass(frozen=True)
class _Outcome:
    rated: tuple[_Rated, ...]
    failures: tuple[str, ...]
    stopped: bool


class LayerChecklist(QListWidget):
    """The viewer's images, each with a check mark; follows what is opened, renamed and removed.

    Attributes
    ----------
    changed : Signal()
        Other layers are checked.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, resources: Resources, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: list[Any] = []
        self._checked: list[Any] = []
        self.setToolTip("Images to rate, gray or in color; z-stacks and time series plane by plane.")
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            resources.connect(event, self._refill)
        self.itemChanged.connect(self._take)
        self._refill()
        active = viewer.layers.selection.active
        if active in self._layers:
            self.check([active])

    @property
    def checked(self) -> list[Any]:
        """The layers that are checked, as they are listed."""
        return [layer for layer in self._layers if layer in self._checked]

    @property
    def offered(self) -> list[Any]:
        """All that can be checked."""
        return list(self._layers)

    def check(self, layers: Sequence[Any]) -> None:
        """Check these layers and no others."""
        self._checked = [layer for layer in layers if layer in self._layers]
        self._refill()

    def _refill(self, _event: Any = None) -> None:
        self._layers = [
            layer
            for layer in self._viewer.layers
            if is_image(layer) and not known_fields(layer).get(_OVERLAY)
        ]
        self._checked = [layer for layer in self._checked if layer in self._layers] or self._layers[:1]
        self.blockSignals(True)
        self.clear()
        for layer in self._layers:
            item = QListWidgetItem(layer.name, self)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            chosen = Qt.CheckState.Checked if layer in self._checked else Qt.CheckState.Unchecked
            item.setCheckState(chosen)
        self.blockSignals(False)
        shown = min(max(1, len(self._layers)), _MOST_LINES)
        self.setFixedHeight(shown * (self.fontMetrics().height() + 6) + 4)
        self.changed.emit()

    def _take(self, _item: QListWidgetItem) -> None:
        self._checked = [
            layer
            for row, layer in enumerate(self._layers)
            if self.item(row).checkState() == Qt.CheckState.Checked
        ]
        self.changed.emit()


class ColorKey(QLabel):
    """What the colors of the borders mean, as wide as there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip("Hue of a border: the level, 0 (sharp) to 10 (blurred). Lightness: the certainty.")
        self._drawn_px = 0

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        """Draw it again."""
        super().resizeEvent(event)
        self.draw()

    def draw(self) -> None:
        """Draw it for its width."""
        from focusqc.overlay import key_rgb

        ratio = self.devicePixelRatioF()
        wide = int(self.width() * ratio)
        if wide == self._drawn_px:
            return
        self._drawn_px = wide
        pixels = np.ascontiguousarray(key_rgb(wide))
        height = len(pixels)
        picture = QImage(pixels.tobytes(), wide, height, 3 * wide, QImage.Format.Format_RGB888).copy()
        picture.setDevicePixelRatio(ratio)
        self.setPixmap(QPixmap.fromImage(picture))
        self.setFixedHeight(max(1, round(height / ratio)))


class FocusQuality(Panel):
    """Rates how well the chosen layers are in focus."""

    TITLE = "Focus quality"
    HELP = (
        "Tells how blurred each part of a fluorescence image or of a stained section is, how sure that is, "
        "and which plane of a z-stack is the sharpest. There is no threshold to set."
    )
    PAGE = "docs/napari.md"
    RUN = "Rate focus"
    RUN_TIP = "Rate all planes of the checked images and draw the borders of their patches."

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self._rated: tuple[_Rated, ...] = ()
        self._borders: dict[int, Any] = {}
        self._chosen = -1
        self._at: tuple[int, ...] = ()

        self.layer_list = LayerChecklist(viewer, self.resources)
        self.add_row("Images", self.layer_list)
        self.axes = QComboBox()
        self.add_row("Axes", self.axes, "What the layer's axes are: T time, C channel, Z plane, Y and X.")
        names = ("channel", "na", "pixel_size_um", "wavelength_um", "refractive_index", "threads")
        self.option_form = OptionForm(FocusOptions, self.form, names, labels=_LABELS)
        more = self.option_form.more
        assert more is not None  # threads are an advanced option
        content = more.content().layout()
        assert isinstance(content, QFormLayout)
        self.more_form = OptionForm(
            FocusOptions,
            content,
            ("tile_count", "modality", "model"),
            labels=_LABELS,
            left_out={"modality": "as the image says"},
            choices={"model": (AUTOMATIC, *_model_names())},
        )
        self.layer_list.changed.connect(self._offer_axes)
        self.axes.currentIndexChanged.connect(self._show_channel_row)

        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.image_table = ColumnsTable(5)
        self.image_table.setToolTip(
            "Click on a row to go to that plane, and to see its image's curve and patches."
        )
        self.image_table.row_chosen.connect(self._show_entry)
        self.key = ColorKey()
        self.curve = CurvePlot("z", "expected level", whole_x=True)
        self.curve.set_limits(y=(0.0, 10.0))
        self.curve.setToolTip("Click to go to a plane. Hue of a point: the level; lightness: the certainty.")
        self.curve.clicked.connect(self._go_along_curve)
        self.sharpest_button = QPushButton("Go to the sharpest plane")
        self.sharpest_button.setToolTip("Move the z slider to the plane of the lowest expected level.")
        self.sharpest_button.clicked.connect(lambda: self.guarded(self.go_to_sharpest))
        self.only_shown = QCheckBox("Only patches of the plane in view")
        self.only_shown.setToolTip("Off: the patches of all planes are in the table.")
        self.only_shown.setChecked(True)
        self.only_shown.toggled.connect(lambda _on: self._show_part_of_table())
        self.patch_table = ColumnsTable(8)
        self.patch_table.setToolTip("Click on a row to go to the patch, on a heading to sort.")
        self.patch_table.row_chosen.connect(lambda row: self.guarded(lambda: self.go_to_patch(row)))
        self.export_button = QPushButton("Export tables ...")
        self.export_button.setToolTip(
            "Write images.csv, patches.csv and exclude.csv into a folder, as lincei focus does."
        )
        self.export_button.clicked.connect(self._ask_folder)
        export_row = QHBoxLayout()
        export_row.addWidget(self.export_button)
        export_row.addStretch(1)
        for widget in (
            self.verdict, self.image_table, self.key, self.curve, self.sharpest_button, self.only_shown,
            self.patch_table,
        ):  # fmt: skip
            self.results.addWidget(widget)
            widget.hide()
        self.results.addLayout(export_row)
        self.export_button.hide()
        self.resources.connect(viewer.dims.events.point, self._follow)
        self._offer_axes()

    # What is done.

    def run(self) -> None:
        """Rate the checked layers."""
        layers = self.layer_list.checked
        if not layers:
            raise UsageError("no image is checked", "", "Open an image, and check it in the list above.")
        works = []
        for layer in layers:
            axes = self._axes_of(layer)
            works.append(_Work(layer, axes, image_of(layer, axes), FocusOptions()))
        with_channels = [work for work in works if work.image.shape[1] > 1 and not work.image.rgb]
        options = self._options(with_channels=bool(with_channels))
        if options.channel and len(with_channels) != len(works):
            raise UsageError(
                "channels are named, and some of the images have only one",
                "",
                "Empty the field Channels, or rate the images with channels by themselves.",
            )
        works = [dataclasses.replace(work, options=options) for work in works]

        def job(progress: ProgressCallback, cancelled: CancelCheck) -> _Outcome:
            return _rate(works, progress, cancelled)

        self.run_job(job, self._take_outcome, name="focus")

    def go_to_sharpest(self) -> None:
        """Move the sliders to the sharpest plane of the time and channel in view.

        Raises
        ------
        LinceiError
            When no plane says anything, or the layer was removed.
        """
        rated = self._current()
        shown = self._plane_in_view(rated)
        best = rated.rating.sharpest.get((shown.time, shown.channel))
        if best is None:
            raise LinceiError(
                "no plane of this stack shows its focus: all are empty or hold only noise",
                rated.work.layer.name,
                "Look at the exposure, or rate another channel.",
            )
        self._go_to_plane(rated, rated.rating.plane(time=shown.time, channel=shown.channel, z=best))

    def go_to_patch(self, row: int) -> None:
        """Move the sliders and the camera to a patch, and mark it.

        Parameters
        ----------
        row : int
            Its number among all patches of the layer, as in patches.csv.

        Raises
        ------
        LinceiError
            When the layer was removed.
        """
        rated = self._current()
        per_plane = (
            rated.rating.planes[0].probabilities.shape[0] * rated.rating.planes[0].probabilities.shape[1]
        )
        plane = rated.rating.planes[row // per_plane]
        self._go_to_plane(rated, plane)
        line, column = divmod(row % per_plane, len(plane.x))
        layer, dims = rated.work.layer, self.viewer.dims
        high, wide = plane.patch_px
        middle = (plane.y[line] + (high - 1) / 2, plane.x[column] + (wide - 1) / 2)
        at = self._index(rated, plane)
        world = np.asarray(layer.data_to_world((*at, *middle)), float)[-layer.ndim :]
        beside = np.asarray(layer.data_to_world((*at, middle[0], middle[1] + wide)), float)[-layer.ndim :]
        everywhere = np.asarray(dims.point, float)
        everywhere[-layer.ndim :] = world
        # napari 0.9 moved the camera; earlier versions have it in the viewer itself.
        camera = getattr(self.viewer, "scene", self.viewer).camera
        shown_px = float(np.linalg.norm(beside - world)) * camera.zoom
        if shown_px < _LEAST_SHOWN_PX:
            camera.zoom *= _SHOWN_PX / shown_px
        camera.center = tuple(everywhere[list(dims.displayed)])
        borders = self._borders.get(id(layer))
        if borders is not None and borders in self.viewer.layers and borders._type_string == "shapes":
            # napari marks shapes of the active layer alone.
            self.viewer.layers.selection.active = borders
            borders.selected_data = {row}

    def export(self, folder: str | Path) -> None:
        """Write the tables of what was rated into a folder, which is made when it is missing.

        The same files as ``lincei focus`` writes: images.csv, patches.csv and exclude.csv.
        """
        from focusqc.tables import FocusTables
        from lincei.image import make_writable

        target, rated = Path(folder), self._rated

        def job(progress: ProgressCallback, cancelled: CancelCheck) -> list[Path]:
            report(progress, Progress("writing", 0, len(rated)))
            stop_if_cancelled(cancelled)
            make_writable(target)
            with FocusTables(target) as tables:
                for one, name in zip(rated, _table_names(rated), strict=True):
                    tables.add(dataclasses.replace(one.rating, file=name))
            return list(tables.paths)

        self.run_job(
            job,
            lambda paths: self.say(f"Written: {', '.join(path.name for path in paths)} in {target}."),
            name="focus-tables",
        )

    def repetition(self) -> Repetition | None:
        """Return how the same images are rated in a script."""
        return _repetition(self._rated) if self._rated else None

    def add_warning(self, sentence: str) -> None:
        """Show a sentence, with the names of the form in place of the command's flags."""
        super().add_warning(_without_flags(sentence))

    def show_error(self, sentence: str | LinceiError, details: str = "") -> None:
        """Show what went wrong, with the names of the form in place of the command's flags."""
        super().show_error(_without_flags(str(sentence)), details)

    # The form.

    def _options(self, *, with_channels: bool) -> FocusOptions:
        values = {**self.option_form.values(), **self.more_form.values()}
        if not with_channels:
            values["channel"] = ()
        return FocusOptions.from_mapping(values)

    def _axes_of(self, layer: Any) -> str:
        """Return what is chosen as a layer's axes: what the form says, where it fits."""
        offered = axes_choices(layer)
        chosen = self.axes.currentText()
        return chosen if chosen in offered else offered[0]

    def _offer_axes(self) -> None:
        """Offer the axes of the first layer that leaves a choice."""
        choices: tuple[str, ...] = ()
        for layer in self.layer_list.checked:
            choices = self.guarded(functools.partial(axes_choices, layer)) or ()
            if len(choices) > 1:
                break
        before = self.axes.currentText()
        if choices != tuple(self.axes.itemText(row) for row in range(self.axes.count())):
            self.axes.blockSignals(True)
            self.axes.clear()
            self.axes.addItems(list(choices))
            if before in choices:
                self.axes.setCurrentIndex(choices.index(before))
            self.axes.blockSignals(False)
        self._set_row_visible(self.axes, len(choices) > 1)
        self._show_channel_row()

    def _show_channel_row(self, _index: int = 0) -> None:
        has_channels = any(
            "C" in self._axes_of(layer) for layer in self.layer_list.checked if layer.ndim in range(2, 6)
        )
        self._set_row_visible(self.option_form.widgets["channel"].native, has_channels)

    def _set_row_visible(self, widget: QWidget, visible: bool) -> None:
        widget.setVisible(visible)
        label = self.form.labelForField(widget)
        if label is not None:
            label.setVisible(visible)

    # What came of it.

    def _take_outcome(self, outcome: _Outcome) -> None:
        for text in outcome.failures:
            self.add_warning(text)
        if not outcome.rated:
            return
        if outcome.stopped:
            self.say("Stopped. The images that were complete are shown.")
        # Older borders of the same images go; layers that the user removed are not there to go.
        for one in outcome.rated:
            old = self._borders.pop(id(one.work.layer), None)
            if old is not None and old in self.viewer.layers:
                self.viewer.layers.remove(old)
        kept = {id(one.work.layer) for one in outcome.rated}
        self._borders = {key: layer for key, layer in self._borders.items() if key in kept}
        self._rated = outcome.rated
        for one in outcome.rated:
            self._borders[id(one.work.layer)] = self._add_borders(one)
        self.viewer.layers.selection.active = outcome.rated[0].work.layer
        self._show_images()
        self._show_image(0)

    def _add_borders(self, one: _Rated) -> Any:
        from napari_plugin.patch_borders import border_levels, border_px, border_rectangles, patch_count

        layer, axes = one.work.layer, one.work.axes
        common = {
            "name": f"{layer.name} focus",
            "metadata": {
                METADATA_KEY: {
                    _OVERLAY: True,
                    "model": one.rating.provenance["model"],
                    "options": one.rating.provenance["parameters"],
                }
            },
            **placement(layer, range(layer.ndim)),
        }
        if patch_count(one.rating) <= MOST_SHAPES:
            vertices, colors = border_rectangles(one.rating, axes)
            shapes = self.viewer.add_shapes(
                vertices,
                shape_type="rectangle",
                edge_width=border_px(one.rating),
                edge_color=colors,
                face_color="transparent",
                opacity=1.0,  # a border that is mixed with the image means another level
                **common,
            )
            shapes.editable = False  # a border that is dragged lies beside its patch
            return shapes
        levels = border_levels(one.rating, axes, finest(layer).shape[: layer.ndim])
        several = len(levels) > 1
        return self.viewer.add_image(
            levels if several else levels[0],
            rgb=True,
            multiscale=several,
            interpolation2d="nearest",
            interpolation3d="nearest",
            **common,
        )

    def _show_images(self) -> None:
        """Show the table of images and times and channels, where there are several."""
        entries = self._entries()
        values: dict[str, list[Any]] = {"image": [], **{name: [] for name in _PLANE_COLUMNS}}
        for name in ("in_focus", "certainty_weighted", "predicted_level", "expected_level", "defocus_um"):
            values[name] = []
        for number, plane in entries:
            rating = self._rated[number].rating
            defocus_um = rating.defocus_um(plane.expected_level)
            values["image"].append(self._rated[number].work.layer.name)
            values["time"].append(plane.time)
            values["channel"].append(plane.channel_name)
            values["z"].append(plane.z)
            for name in ("in_focus", "certainty_weighted", "predicted_level", "expected_level"):
                values[name].append(getattr(plane, name))
            values["defocus_um"].append(np.nan if defocus_um is None else defocus_um)
        from focusqc.overlay import level_colors

        colors = level_colors(values["expected_level"], values["certainty_weighted"])
        planes = [plane for one in self._rated for plane in one.rating.planes]
        columns = {
            name: column
            for name, column in values.items()
            if (name not in _PLANE_COLUMNS or len({_place(plane)[name] for plane in planes}) > 1)
            and (name != "defocus_um" or not np.all(np.isnan(column)))
        }
        self.image_table.show_columns(columns, colors=colors, tips=_TIPS)
        self.image_table.setVisible(len(entries) > 1)

    def _entries(self) -> list[tuple[int, PlaneRating]]:
        """Return the rows of the table of images: which image, and its plane that decides."""
        return [(number, plane) for number, one in enumerate(self._rated) for plane in one.deciding]

    def _show_entry(self, row: int) -> None:
        number, plane = self._entries()[row]
        if number != self._chosen:
            self._show_image(number)
        self.guarded(lambda: self._go_to_plane(self._rated[number], plane))

    def _show_image(self, number: int) -> None:
        """Show verdict, curve and table of one of the images."""
        self._chosen, self._at = number, ()
        one = self._rated[number]
        # Images often lie on one another; borders of several at once could not be told apart.
        for key, borders in self._borders.items():
            borders.visible = key == id(one.work.layer)
        self.patch_table.show_columns(one.columns, colors=one.colors, tips=_TIPS)
        for widget in (self.verdict, self.key, self.patch_table, self.export_button):
            widget.show()
        is_stack = len({plane.z for plane in one.rating.planes}) > 1
        is_series = len({plane.time for plane in one.rating.planes}) > 1
        self.curve.setVisible(is_stack or is_series)
        self.curve.set_axis_names("z" if is_stack else "time point", "expected level")
        self.sharpest_button.setVisible(is_stack)
        self.only_shown.setVisible(len(one.rating.planes) > 1)
        self._follow()

    def _follow(self, _event: Any = None) -> None:
        """Show what belongs to the plane in view."""
        if not self._rated or self._chosen < 0:
            return
        one = self._current()
        if one.work.layer not in self.viewer.layers:
            return
        plane = self._plane_in_view(one)
        at = (plane.time, plane.channel, plane.z)
        if at == self._at:
            return
        self._at = at
        self._show_verdict(one, plane)
        self._show_curve(one, plane)
        self._show_part_of_table()
        for row, (number, deciding) in enumerate(self._entries()):
            if number == self._chosen and (deciding.time, deciding.channel) == at[:2]:
                self.image_table.choose(row)

    def _show_verdict(self, one: _Rated, shown: PlaneRating) -> None:
        (plane,) = (p for p in one.deciding if (p.time, p.channel) == (shown.time, shown.channel))
        rating = one.rating
        is_stack = len({p.z for p in rating.planes}) > 1
        where = [
            *([f"time {plane.time}"] if len({p.time for p in rating.planes}) > 1 else []),
            *([f"channel {plane.channel_name}"] if len({p.channel for p in rating.planes}) > 1 else []),
        ]
        name = ", ".join([one.work.layer.name, *where])
        text = f"<b>{_escaped(name)}: {_WORDS[plane.in_focus].lower()}</b><br>"
        if is_stack and (plane.time, plane.channel) in rating.sharpest:
            text += f"The sharpest plane is z = {plane.z} (counted from 0). "
        elif is_stack:
            text += "No plane shows its focus. "
        text += _in_words(rating, plane)
        if is_stack and shown is not plane:
            text += (
                f"<br>In view: z = {shown.z}, {_WORDS[shown.in_focus].lower()}. {_in_words(rating, shown)}"
            )
        self.verdict.setText(text)

    def _show_curve(self, one: _Rated, shown: PlaneRating) -> None:
        from focusqc.overlay import level_color

        is_stack = len({plane.z for plane in one.rating.planes}) > 1
        planes = [
            plane
            for plane in one.rating.planes
            if plane.channel == shown.channel and (plane.time == shown.time or not is_stack)
        ]
        at = [plane.z if is_stack else plane.time for plane in planes]
        axis = "z" if is_stack else "time"
        self.curve.set_series(
            "expected level",
            at,
            [plane.expected_level for plane in planes],
            "#8a8f98",
            point_colors=[
                "#{:02x}{:02x}{:02x}".format(*level_color(plane.expected_level, plane.certainty_weighted))
                for plane in planes
            ],
            tips=[
                f"{axis} = {place}: expected level {plane.expected_level:.2f}, certainty "
                f"{plane.certainty_weighted:.2f}, in focus: {plane.in_focus}"
                for place, plane in zip(at, planes, strict=True)
            ],
        )
        self.curve.set_marker("in view", shown.z if is_stack else shown.time)

    def _show_part_of_table(self) -> None:
        if self._chosen < 0:
            return
        one = self._current()
        planes = one.rating.planes
        per_plane = _patches_per_plane(one.rating)
        if self.only_shown.isChecked() and len(planes) > 1:
            number = planes.index(self._plane_in_view(one))
            self.patch_table.columns.show_only(number * per_plane, (number + 1) * per_plane)
        else:
            self.patch_table.columns.show_only(0, len(planes) * per_plane)

    # Where things are.

    def _current(self) -> _Rated:
        return self._rated[self._chosen]

    @staticmethod
    def _index(one: _Rated, plane: PlaneRating) -> tuple[int, ...]:
        from napari_plugin.patch_borders import plane_index

        return plane_index(plane, one.work.axes)

    def _plane_in_view(self, one: _Rated) -> PlaneRating:
        """Return the rated plane that the sliders are at, or the one nearest to it."""
        layer, planes = one.work.layer, one.rating.planes
        if layer not in self.viewer.layers:
            return planes[0]
        at = np.array([current_index(self.viewer, layer, axis) for axis in range(layer.ndim - 2)])
        if not at.size:
            return planes[0]
        return min(planes, key=lambda plane: float(np.abs(np.array(self._index(one, plane)) - at).sum()))

    def _go_to_plane(self, one: _Rated, plane: PlaneRating) -> None:
        layer, dims = one.work.layer, self.viewer.dims
        if layer not in self.viewer.layers:
            raise LinceiError(
                "this image is no longer in the viewer", layer.name, "Open it and rate it again."
            )
        shape = finest(layer).shape[: layer.ndim]
        middle = ((shape[-2] - 1) / 2, (shape[-1] - 1) / 2)
        world = np.asarray(layer.data_to_world((*self._index(one, plane), *middle)), float)[-layer.ndim :]
        first = dims.ndim - layer.ndim
        for axis in range(layer.ndim - 2):
            if first + axis not in dims.displayed:
                dims.set_point(first + axis, float(world[axis]))

    def _go_along_curve(self, x: float) -> None:
        one = self._current()
        shown = self._plane_in_view(one)
        is_stack = len({plane.z for plane in one.rating.planes}) > 1
        place = {"time": shown.time, "channel": shown.channel, "z": shown.z}
        place["z" if is_stack else "time"] = round(x)
        self.guarded(lambda: self._go_to_plane(one, one.rating.plane(**place)))

    def _ask_folder(self) -> None:
        from focusqc.tables import EXCLUDE_FILE, IMAGES_FILE, PATCHES_FILE

        chosen = QFileDialog.getExistingDirectory(self, "Folder for the tables")
        if not chosen:
            return
        older = [name for name in (IMAGES_FILE, PATCHES_FILE, EXCLUDE_FILE) if (Path(chosen) / name).exists()]
        if older:
            text = f"{chosen} holds {', '.join(older)} already. Replace them?"
            if QMessageBox.question(self, self.TITLE, text) != QMessageBox.StandardButton.Yes:
                return
        self.guarded(lambda: self.export(chosen))


def _model_names() -> list[str]:
    from lincei.model import list_models

    return [model.name for model in list_models("focus")]


def _rate(works: Sequence[_Work], progress: ProgressCallback, cancelled: CancelCheck) -> _Outcome:
    """Rate layers one after the other; one that fails does not hold up the others."""
    from focusqc import focus
    from lincei.batch import readable_error

    rated: list[_Rated] = []
    failures: list[str] = []
    for number, work in enumerate(works):
        try:
            rating = focus(
                work.image,
                options=work.options,
                progress=_part_of(progress, number, len(works), work.image.name),
                cancelled=cancelled,
            )
            rated.append(_told(work, dataclasses.replace(rating, image=None)))
        except CancelledError:
            if not rated:
                raise
            return _Outcome(tuple(rated), tuple(failures), stopped=True)
        except Exception as error:
            readable = readable_error(error, work.layer.name)
            if readable is None or len(works) == 1:
                raise
            failures.append(str(readable))
    return _Outcome(tuple(rated), tuple(failures), stopped=False)


def _part_of(progress: ProgressCallback, number: int, count: int, name: str) -> ProgressCallback:
    """Return what takes the progress of one of several images."""
    parts = 1000

    def report(update: Progress) -> None:
        done = parts * update.done // update.total if update.total else 0
        text = f"rating {name}" + (f" ({number + 1} of {count})" if count > 1 else "")
        progress(Progress(update.stage, number * parts + done, count * parts, text))

    return report


def _told(work: _Work, rating: FocusRating) -> _Rated:
    """Return a rating with all that is shown of it."""
    from focusqc.overlay import level_colors
    from focusqc.tables import deciding_planes

    several = [name for name in _PLANE_COLUMNS if len({_place(plane)[name] for plane in rating.planes}) > 1]
    names = (*several, *_PATCH_COLUMNS)
    lists: dict[str, list[Any]] = {name: [] for name in names}
    for row in rating.iter_patch_rows():
        for name, values in lists.items():
            values.append(row[name])
    columns: dict[str, NDArray[Any]] = {}
    for name, values in lists.items():
        # None becomes not a number; without any number there is no column.
        columns[name] = np.asarray(values, float) if name == "defocus_um" else np.asarray(values)
    if np.all(np.isnan(columns["defocus_um"])):
        del columns["defocus_um"]
    return _Rated(
        work,
        rating,
        tuple(deciding_planes(rating)),
        columns,
        level_colors(columns["predicted_level"], columns["certainty"]),
        _repeats_from_file(work),
    )


def _patches_per_plane(rating: FocusRating) -> int:
    rows, columns = rating.planes[0].probabilities.shape[:2]
    return rows * columns


def _place(plane: PlaneRating) -> dict[str, Any]:
    return {"time": plane.time, "channel": plane.channel_name, "z": plane.z}


def _in_words(rating: FocusRating, plane: PlaneRating) -> str:
    """Say level, certainty and defocus of a plane in a sentence."""
    if plane.in_focus == "uncertain":
        because = "; ".join(plane.notes) or "it shows too little to tell"
        return f"Certainty {plane.certainty_weighted:.2f}: {_escaped(because)}."
    text = f"Certainty {plane.certainty_weighted:.2f}, expected level {plane.expected_level:.1f} "
    text += "(0 sharp, 10 blurred)"
    defocus_um = rating.defocus_um(plane.expected_level)
    if defocus_um is not None:
        text += f"; about {defocus_um:.2g} um from focus"
    return f"{text}." + (f" Note: {_escaped('; '.join(plane.notes))}." if plane.notes else "")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _without_flags(sentence: str) -> str:
    """Return a sentence with the names of the form in place of the command's flags."""
    for name in sorted(_LABELS, key=len, reverse=True):
        sentence = sentence.replace(flag_name(name), f"“{_LABELS[name]}”")
    return sentence


def _repeats_from_file(work: _Work) -> bool:
    """Tell whether the layer's file, opened by lincei, is the same image."""
    from lincei.image import open_image

    source = source_of(work.layer)
    if source is None or not Path(source).exists():
        return False
    try:
        image = open_image(source)
    except LinceiError:
        return False
    return image.shape == work.image.shape and image.rgb == work.image.rgb and image.dtype == work.image.dtype


def _table_names(rated: Sequence[_Rated]) -> list[str]:
    """Return what images are called in the tables: as the command does where they are files."""
    from focusqc.focus_files import file_names
    from lincei.pattern import find_inputs

    sources = [source_of(one.work.layer) for one in rated]
    if all(source is not None and Path(source).exists() for source in sources):
        groups = find_inputs([str(source) for source in sources])
        if len(groups) == len(rated):
            return file_names(groups)
    return [one.work.layer.name for one in rated]


def _repetition(rated: Sequence[_Rated]) -> Repetition:
    options = rated[0].work.options
    opened, saved, files, notes = [], [], [], []
    for one in rated:
        source, size = source_of(one.work.layer), one.work.image.pixel_size_um
        if one.repeats_from_file and source is not None:
            given = [repr(source)]
            if size is not None:
                given.append(f"pixel_size_um={size!r}")
            opened.append(f"    open_image({', '.join(given)}),")
            files.append(source)
            continue
        name = safe_name(one.work.layer.name)
        axes = one.work.axes + ("S" if one.work.layer.rgb else "")
        fields = [f"name={name!r}", *([f"pixel_size_um={size!r}"] if size is not None else [])]
        opened.append(
            f"    Image.from_array(tifffile.imread({name + '.tif'!r}), {axes!r}, {', '.join(fields)}),"
        )
        saved.append(
            f"Save the layer {one.work.layer.name!r} as {name}.tif first (File > Save Selected Layers)."
        )
        files.append(f"{name}.tif")
    states_size = any(one.work.image.pixel_size_um is not None for one in rated)
    if options.na is not None and options.pixel_size_um is None and states_size:
        notes.append("Defocus in um needs files that state their pixel size.")
    arguments = ", ".join(["image", *keyword_arguments(options)])
    python = "\n".join(
        [
            *(["import tifffile", ""] if saved else []),
            "from focusqc import focus",
            f"from lincei.image import {', '.join(_imported(rated))}",
            "",
            *(f"# {line}" for line in saved),
            "images = [",
            *opened,
            "]",
            "for image in images:",
            f"    rating = focus({arguments})",
            "    for plane in rating.planes:",
            "        print(image.name, f'time {plane.time}, channel {plane.channel_name}, z {plane.z}')",
            "        print(plane.in_focus, plane.expected_level, plane.certainty_weighted)",
            "    rating.to_dataframe().to_csv(f'{image.name} patches.csv', index=False)",
            "",
        ]
    )
    line = command_line("focus", files, options, {"--out": "rated"})
    return Repetition(python, "\n".join([*(f"# {text}" for text in (*saved, *notes)), line]))


def _imported(rated: Sequence[_Rated]) -> list[str]:
    names = set()
    for one in rated:
        names.add("open_image" if one.repeats_from_file else "Image")
    return sorted(names)
