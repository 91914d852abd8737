"""Outlining tumor in an image layer: probability, outlines that can be corrected, a table, and files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel, QPushButton

from arm_overlay.options import TumorOptions
from lincei.errors import LinceiError
from lincei.progress import CancelCheck, ProgressCallback
from napari_plugin.layer_chooser import LayerChooser, is_color
from napari_plugin.layers import METADATA_KEY, image_of, pixel_size_um, placement, safe_name, source_of
from napari_plugin.option_form import OptionForm
from napari_plugin.panel import Panel
from napari_plugin.repetition import Repetition, command_line, keyword_arguments
from napari_plugin.tables import FigureTable

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from arm_overlay.overlay import Region
    from arm_overlay.tumor_image import TumorOutline

# No hematoxylin or eosin is green.
OUTLINE_COLOR = "#00ff00"
TUMOR, HOLE = "tumor", "hole"
# Up to this size the probability is computed at once, pixel by pixel; beyond, where it is looked at.
_WHOLE_UP_TO_PX = 4096
_COARSEST_PX = 1024
# Outlines are this part of the image's longer side wide, but no wider than so many micrometers (pixels where
# the size is not known): on a slide they would cover cells. Holes are drawn thinner, as in the microscope.
_WIDTH_SHARE, _WIDEST = 1 / 500, 10.0
_HOLE_SHARE = 0.4
_ELLIPSE_POINTS = 128
# A region that was clicked on fills this part of what the whole image filled.
_FILLED = 0.5
# Of what is drawn: corners that bend a line by less than the first are left out, others moved by the second.
_BEND_PX, _APART_PX = 0.08, 0.01
# The control of the pixel size rounds to this.
_SHOWN_UM = 1e-4
# A shape wholly within another may touch it.
_TOUCHING_PX = 1e-3


class OutlineTumor(Panel):
    """Outline tumor in a color layer, correct the outlines, measure and export them."""

    TITLE = "Outline tumor"
    HELP = (
        "Outlines tumor in a stained section (H&E, in color), from a photo of one field to a whole slide, "
        "and measures the regions."
    )
    PAGE = "docs/napari.md"
    RUN = "Outline"
    RUN_TIP = "Look for tumor in the whole layer. A slide takes minutes; glass is left out."

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__(viewer)
        self.image_layer = LayerChooser(
            viewer,
            self.resources,
            is_color,
            tooltip="The section: an image in color (RGB), or a pyramid of it.",
        )
        self.add_row("Section", self.image_layer)
        self.options_form = OptionForm(
            TumorOptions,
            self.form,
            ("model", "pixel_size_um", "threshold", "smallest_um", "engine", "threads"),
            labels={"model": "Model", "smallest_um": "Smallest region (um)"},
            left_out={"pixel_size_um": "not known", "threshold": "the model's own"},
            choices={"model": _model_names()},
        )
        self.image_layer.layer_changed.connect(self._take_pixel_size)
        self._take_pixel_size(self.image_layer.layer)

        self.outline: TumorOutline | None = None
        self.shapes: Any = None
        self._made_from: _Section | None = None
        self._drawn: list[NDArray[Any]] = []
        self._found: dict[bytes, NDArray[Any]] = {}
        self._options = TumorOptions()

        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.hide()
        self.table = FigureTable(("region", "area", "largest diameter", "mean probability"))
        self.table.setToolTip("Click a region to go to it; click a heading to sort.")
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.table.cellClicked.connect(lambda row, _column: self.go_to(int(self.table.item(row, 0).value)))
        self.table.hide()
        self.measure_button = _button(
            "Measure again",
            "After you have corrected the outlines with the tools of their layer: measure what is drawn now. "
            "A shape drawn inside a region is a hole in it.",
            self.measure_again,
        )
        self.copy_table_button = _button(
            "Copy table", "Copy the table; paste it into a spreadsheet.", self.table.copy
        )
        self.geojson_button = _button(
            "Export for QuPath ...",
            "Save the outlines as drawn now as GeoJSON; drag the file onto the image in QuPath.",
            lambda: self._ask_and_export(".geojson", "GeoJSON (*.geojson)"),
        )
        self.roi_button = _button(
            "Export for ImageJ ...",
            "Save the outlines as drawn now as ROIs; open the .zip in ImageJ or Fiji.",
            lambda: self._ask_and_export(".roi.zip", "ROI sets (*.zip)"),
        )
        self.results.addWidget(self.summary)
        self.results.addWidget(self.table)
        self._result_buttons = (
            self.measure_button,
            self.copy_table_button,
            self.geojson_button,
            self.roi_button,
        )
        for pair in (self._result_buttons[:2], self._result_buttons[2:]):
            row = QHBoxLayout()
            for button in pair:
                button.hide()
                row.addWidget(button)
            self.results.addLayout(row)

    # Outlining.

    def run(self) -> None:
        """Outline tumor in the chosen layer."""
        layer = self.image_layer.layer
        if layer is None:
            raise LinceiError(
                "there is no image in color among the layers, and tumor is told from other tissue by its "
                "colors too",
                "",
                "Open one that is saved as RGB; three gray channels are joined by right-clicking the layers: "
                "Merge to RGB.",
            )
        options = self.options_form.options()
        size = pixel_size_um(layer)
        if size is not None and abs(size - (options.pixel_size_um or 0)) < _SHOWN_UM:
            options = dataclasses.replace(options, pixel_size_um=size)  # the control shows few digits
        image = image_of(layer, pixel_size_um=options.pixel_size_um)
        section = _Section.of(layer)

        def job(
            progress: ProgressCallback, cancelled: CancelCheck
        ) -> tuple[TumorOutline, _Probability | None]:
            from arm_overlay.tumor_image import tumor

            outline = tumor(image, options=options, progress=progress, cancelled=cancelled)
            return outline, _Probability.of(outline)

        self.run_job(job, lambda made: self._show_outline(section, options, *made), name="outline tumor")

    def _show_outline(
        self,
        section: _Section,
        options: TumorOptions,
        outline: TumorOutline,
        probability: _Probability | None,
    ) -> None:
        self._made_from, self._options, self.outline = section, options, outline
        if self.shapes is not None and self.shapes in self.viewer.layers:
            self.shapes.visible = False  # two outlines over each other cannot be told apart
        self.shapes = None
        told = {
            "model": outline.model,
            "modality": "H&E",
            "threshold": outline.threshold,
            "options": options.to_json(),
            "source": section.source or section.name,
        }
        if probability is not None:
            self._add_probability(section, probability, told)
        if outline.points is not None:
            self.viewer.add_points(
                outline.points[:, ::-1],
                name=f"{section.name} points",
                face_color=OUTLINE_COLOR,
                size=max(2.0, self._line_width()),
                metadata={METADATA_KEY: told},
                **section.placed((1.0, 1.0)),
            )
        elif outline.heat is not None:
            self.shapes = self.viewer.add_shapes(
                name=f"{section.name} tumor outlines",
                metadata={METADATA_KEY: told},
                ndim=2,
                features={"kind": np.empty(0, object), "region": np.empty(0, int)},
                feature_defaults={"kind": TUMOR, "region": 0},
                edge_color=OUTLINE_COLOR,
                face_color="transparent",
                opacity=1,
                **section.placed((1.0, 1.0)),
            )
            self._draw()
        self._show_figures()

    def _add_probability(self, section: _Section, probability: _Probability, told: Mapping[str, Any]) -> None:
        size = section.size_px
        steps = tuple(whole / shown for whole, shown in zip(size, probability.levels[0].shape, strict=True))
        name = f"{section.name} tumor probability"
        for older in [layer for layer in self.viewer.layers if layer.name == name]:
            older.visible = False
        self.viewer.add_image(
            list(probability.levels) if len(probability.levels) > 1 else probability.levels[0],
            multiscale=len(probability.levels) > 1,
            name=name,
            colormap=_probability_colors(),
            contrast_limits=(0, 1),
            blending="translucent_no_depth",
            visible=False,  # over a tumor it would hide the tissue
            metadata={METADATA_KEY: dict(told)},
            **section.placed(steps),
        )

    def _draw(self) -> None:
        """Draw the regions in place of what is in the layer: one polygon for each, thinner ones for holes."""
        assert self.outline is not None
        rings, kinds, numbers, widths = [], [], [], []
        width = self._line_width()
        for number, region in enumerate(self.outline.regions, start=1):
            for ring in (region.exterior, *region.holes):
                is_hole = ring is not region.exterior
                rings.append(_drawable(ring)[:, ::-1])
                kinds.append(HOLE if is_hole else TUMOR)
                numbers.append(number)
                widths.append(width * (_HOLE_SHARE if is_hole else 1))
        layer = self.shapes
        if len(layer.data):
            layer.selected_data = set(range(len(layer.data)))
            layer.remove_selected()
        if rings:
            layer.add(
                rings,
                shape_type="polygon",
                edge_width=widths,
                edge_color=OUTLINE_COLOR,
                face_color="transparent",
            )
            layer.features = {"kind": np.array(kinds, object), "region": np.array(numbers)}
        layer.feature_defaults = {"kind": TUMOR, "region": 0}
        layer.current_edge_color, layer.current_face_color = OUTLINE_COLOR, "transparent"
        layer.current_edge_width = width
        # As the layer keeps them, so that what was changed is seen; what was not is measured as it was found.
        self._drawn = [np.array(ring) for ring in layer.data]
        found = [ring for region in self.outline.regions for ring in (region.exterior, *region.holes)]
        self._found = {drawn.tobytes(): ring for drawn, ring in zip(self._drawn, found, strict=True)}

    def _line_width(self) -> float:
        assert self.outline is not None
        widest = _WIDEST / (self.outline.pixel_size_um or 1.0)
        return float(np.clip(max(self.outline.size_px) * _WIDTH_SHARE, 1.0, max(1.0, widest)))

    def _show_figures(self) -> None:
        assert self.outline is not None
        outline, size = self.outline, self.outline.pixel_size_um
        unit, scale = ("um", size) if size is not None else ("px", 1.0)
        has_map = outline.heat is not None and outline.points is None
        lines = []
        if has_map:
            share = "no tissue is found" if outline.percent is None else f"tumor: {outline.percent:.1f} %"
            of_tissue = "" if outline.percent is None else " of the tissue"
            count = len(outline.regions)
            lines.append(f"<b>{share.capitalize()}</b>{of_tissue}, {count} region{'' if count == 1 else 's'}")
            if outline.field_score is not None:
                lines.append(f"probability of any tumor in the layer: {outline.field_score:.2f}")
        lines += outline.texts
        lines.append(f"model {outline.model}, threshold {outline.threshold:.2g}")
        if outline.probability is not None:
            lines.append("The probability is a hidden layer: click its eye to see it over the tissue.")
        self.summary.setText("<br>".join(lines))
        self.summary.show()
        self.table.setHorizontalHeaderLabels(
            ["region", f"area\n({unit}^2)", f"largest\ndiameter\n({unit})", "mean\nprobability"]
        )
        self.table.show_rows(
            [
                (number, float(region.area_px * scale**2), float(region.diameter_px * scale), region.score)
                for number, region in enumerate(outline.regions, start=1)
            ]
        )
        self.table.setVisible(has_map)
        for button in self._result_buttons:
            button.setVisible(has_map or outline.points is not None)
        self.measure_button.setVisible(has_map)
        self.copy_table_button.setVisible(has_map)

    def go_to(self, number: int) -> None:
        """Show a region, counted from 1 as in the table, in the middle of the view, and select it."""
        if self.shapes is None or self.shapes not in self.viewer.layers:
            return
        wanted = np.nonzero((self.shapes.features["region"] == number).to_numpy())[0]
        if not len(wanted):
            return
        ring = np.asarray(self.shapes.data[wanted[0]])
        low, high = ring.min(axis=0), ring.max(axis=0)
        center = np.asarray(self.shapes.data_to_world((low + high) / 2))[-2:]
        reach = np.ptp([np.asarray(self.shapes.data_to_world(corner))[-2:] for corner in ring], axis=0).max()
        self.viewer.reset_view()
        # All layers just fit into the canvas now.
        shown = np.ptp(np.asarray(self.viewer.layers.extent.world)[:, -2:], axis=0).min()
        camera = getattr(self.viewer, "scene", self.viewer).camera  # elsewhere before napari 0.9
        camera.center = (*camera.center[:-2], *center)
        if reach > 0:
            camera.zoom *= _FILLED * shown / reach
        self.viewer.layers.selection.active = self.shapes
        self.shapes.selected_data = set(wanted.tolist())

    # What the user has corrected.

    def measure_again(self) -> None:
        """Measure the outlines as they are drawn now."""
        self.guarded(lambda: self._take_drawn(say=True))

    def _take_drawn(self, *, say: bool = False) -> None:
        """Take over what is drawn now, where it was changed."""
        assert self.outline is not None
        if self.shapes is None or self.shapes not in self.viewer.layers:
            raise LinceiError(
                "the layer with the outlines is gone", self.TITLE, f"Click {self.RUN!r} to make it again."
            )
        if not self._is_changed():
            if say:
                self.say("Nothing was changed since it was measured.")
            return
        rings, holes, left_out = self._rings_drawn()
        self.outline = self.outline.with_regions(regions_drawn(rings, holes))
        self._draw()
        self._show_figures()
        if left_out:
            self.add_warning(
                f"{left_out} line{'s have' if left_out > 1 else ' has'} no area and was left out."
            )
        elif say:
            self.say("Measured as drawn.")

    def _is_changed(self) -> bool:
        now = self.shapes.data
        return (
            len(now) != len(self._drawn)
            or any(not np.array_equal(a, b) for a, b in zip(now, self._drawn, strict=True))
            or not np.allclose(self._onto_section(), np.eye(3), atol=1e-6)
        )

    def _onto_section(self) -> NDArray[np.float64]:
        """Return the matrix from the layer's coordinates to pixels of the section; the layer may be moved."""
        assert self._made_from is not None
        corners = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
        here = np.array([np.asarray(self.shapes.data_to_world(corner))[-2:] for corner in corners])
        there = self._made_from.from_world(here)
        matrix = np.eye(3)
        matrix[:2, 2] = there[0]
        matrix[:2, 0], matrix[:2, 1] = there[1] - there[0], there[2] - there[0]
        return matrix

    def _rings_drawn(self) -> tuple[list[NDArray[np.float64]], list[bool], int]:
        """Return the rings drawn, x and y in pixels of the section; which are holes; how many are lines."""
        matrix, left_out = self._onto_section(), 0
        in_place = np.allclose(matrix, np.eye(3), atol=1e-6)
        rings, holes = [], []
        kinds = self.shapes.features["kind"].tolist()
        for data, shape_type, kind in zip(self.shapes.data, self.shapes.shape_type, kinds, strict=True):
            if shape_type in ("line", "path"):
                left_out += 1
                continue
            holes.append(kind == HOLE)
            found = self._found.get(np.asarray(data).tobytes()) if in_place else None
            if found is not None:
                rings.append(np.asarray(found, np.float64))
                continue
            corners = _ellipse(data) if shape_type == "ellipse" else np.asarray(data, np.float64)
            places = corners[:, -2:] @ matrix[:2, :2].T + matrix[:2, 2]
            rings.append(places[:, ::-1])
        return rings, holes, left_out

    # Files.

    def export(self, path: str | Path) -> Path:
        """Write the outlines as they are drawn now.

        Parameters
        ----------
        path : str or Path
            ``.geojson`` for QuPath, ``.zip`` for ImageJ.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        LinceiError
            When there is nothing to write, or it cannot be written.
        """
        from arm_overlay.annotations import TUMOR as TUMOR_CLASS
        from arm_overlay.annotations import write_geojson, write_rois
        from arm_overlay.tumor_image import found_model

        path = Path(path)
        if self.outline is None:
            raise LinceiError("there is nothing to export yet", self.TITLE, f"Click {self.RUN!r} first.")
        if self.outline.points is None:
            self._take_drawn()
        outline = self.outline
        name = TUMOR_CLASS if outline.points is None else found_model(self._options.model).point_name
        if path.suffix.lower() == ".zip":
            if not outline.regions and (outline.points is None or not len(outline.points)):
                raise LinceiError(
                    "nothing is outlined, and ImageJ opens no empty set of ROIs",
                    self.TITLE,
                    "Draw a region first.",
                )
            return write_rois(path, outline.regions, points=outline.points, name=name)
        return write_geojson(
            path, outline.regions, points=outline.points, name=name, pixel_size_um=outline.pixel_size_um
        )

    def _ask_and_export(self, suffix: str, kind: str) -> None:
        stem = Path(safe_name(self._made_from.name)).stem if self._made_from else "outlines"
        chosen, _ = QFileDialog.getSaveFileName(self, "Export outlines", f"{stem}{suffix}", kind)
        if chosen:
            path = Path(chosen)
            ending = "." + suffix.rsplit(".", 1)[1]
            if path.suffix.lower() != ending:
                path = path.with_name(path.name + suffix)
            written = self.guarded(lambda: self.export(path))
            if written is not None:
                self.say(f"Saved {written}.")

    # The same in a script.

    def repetition(self) -> Repetition | None:
        """Return how the same outlines are made in a script."""
        if self.outline is None or self._made_from is None:
            return None
        section = self._made_from
        # Stated in any case: what the viewer knows need not be in the file.
        options = dataclasses.replace(self._options, pixel_size_um=self.outline.pixel_size_um)
        file = section.source or f"{safe_name(section.name)}.tif"
        arguments = ", ".join(["image", *keyword_arguments(options)])
        stem = Path(file).name.partition(".")[0]
        note = (
            []
            if section.source
            else [f"# The layer is not from a file: save it first as {file} (File, Save Selected Layers)."]
        )
        python = [
            "from arm_overlay.annotations import write_geojson, write_rois",
            "from arm_overlay.tumor_image import tumor",
            "from lincei.image import open_image",
            "",
            *note,
            f"image = open_image({file!r})",
            f"outline = tumor({arguments})",
            "print(outline.percent, [(region.area_px, region.diameter_px) for region in outline.regions])",
            f"write_geojson({stem + '.geojson'!r}, outline.regions, pixel_size_um=outline.pixel_size_um)",
            "if outline.regions:",
            f"    write_rois({stem + '.roi.zip'!r}, outline.regions)",
        ]
        command = command_line("tumor", [file], options, {"--out": "outlined"})
        return Repetition("\n".join(python) + "\n", "\n".join([*note, command]))

    def _take_pixel_size(self, layer: Layer | None) -> None:
        size = None if layer is None else self.guarded(lambda: pixel_size_um(layer))
        self.options_form.set("pixel_size_um", size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Section:
    """What is kept of the layer that was outlined, which may be gone later.

    Parameters
    ----------
    name : str
        The layer's.
    source : str or None
        Its file.
    size_px : tuple of int
        Height and width.
    matrix : ndarray
        Shape (3, 3): from its y and x in pixels to the world's.
    layer : napari.layers.Image
        The layer itself, for where it lies.
    """

    name: str
    source: str | None
    size_px: tuple[int, int]
    matrix: NDArray[np.float64]
    layer: Any

    @classmethod
    def of(cls, layer: Any) -> _Section:
        """Return what is known of a layer."""
        number = layer.ndim
        shape = layer.data[0].shape if layer.multiscale else layer.data.shape
        corners = np.zeros((3, number))
        corners[1, -2], corners[2, -1] = 1, 1
        there = np.array([np.asarray(layer.data_to_world(corner))[-2:] for corner in corners])
        matrix = np.eye(3)
        matrix[:2, 2] = there[0]
        matrix[:2, 0], matrix[:2, 1] = there[1] - there[0], there[2] - there[0]
        return cls(
            layer.name, source_of(layer), (int(shape[number - 2]), int(shape[number - 1])), matrix, layer
        )

    def from_world(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return places of the world, shape (N, 2), in pixels of the section."""
        inverse = np.linalg.inv(self.matrix)
        return places @ inverse[:2, :2].T + inverse[:2, 2]

    def placed(self, steps: Sequence[float]) -> dict[str, Any]:
        """Return where a result lies whose pixels are so many of the section's."""
        return placement(self.layer, (self.layer.ndim - 2, self.layer.ndim - 1), step_px=steps)


@dataclasses.dataclass(frozen=True, eq=False)
class _Probability:
    """The probability as a layer shows it.

    Parameters
    ----------
    levels : tuple
        Arrays of shape (Y, X), float32, the finest first; large ones are computed where they are looked at.
    """

    levels: tuple[Any, ...]

    @classmethod
    def of(cls, outline: TumorOutline) -> _Probability | None:
        """Return the probability of an outline; None where the model gives none."""
        from lincei.pixel_size import ResampledArray

        if outline.probability is None or outline.heat is None:
            return None
        height, width = outline.probability.shape[3:]
        if max(height, width) <= _WHOLE_UP_TO_PX:
            return cls((outline.probability.read()[0, 0, 0],))
        levels: list[Any] = [_Plane(outline.probability.data)]
        assert outline.cell_px is not None
        step, cells = 4, outline.heat[np.newaxis, np.newaxis, np.newaxis]
        cell_px = outline.cell_px * width / outline.size_px[0]
        while max(height, width) * 4 / step > _COARSEST_PX:
            size = (-(-height // step), -(-width // step))
            levels.append(_Plane(ResampledArray(cells, cell_px / step, size)))
            step *= 4
        return cls(tuple(levels))


class _Plane:
    """One plane of a five-axis array, as the viewer takes it; computed where it is looked at."""

    ndim = 2

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, int] = tuple(array.shape[3:])
        self.size = self.shape[0] * self.shape[1]
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        parts = key if isinstance(key, tuple) else (key,)
        boxes = [slice(part, part + 1) if isinstance(part, (int, np.integer)) else part for part in parts]
        values = np.asarray(self._array[(0, 0, 0, *boxes)])
        dropped = tuple(axis for axis, part in enumerate(parts) if isinstance(part, (int, np.integer)))
        return values.squeeze(axis=dropped) if dropped else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self[:, :], dtype)


def regions_drawn(rings: Sequence[NDArray[Any]], holes: Sequence[bool]) -> list[Region]:
    """Return the regions that somebody has drawn as rings.

    Rings that overlap are one region. A ring within another is a hole in it, one within that hole a region
    again, and so on; a ring that was drawn as a hole stays one, also where it was dragged across a border.

    Parameters
    ----------
    rings : sequence of ndarray
        Shape (N, 2) each, x and y in pixels, not closed.
    holes : sequence of bool
        Which of them were drawn as holes.

    Returns
    -------
    list of Region
        They do not overlap.
    """
    import shapely

    from arm_overlay.outline import region_of

    areas = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings if len(ring) >= 3]
    marks = [mark for ring, mark in zip(rings, holes, strict=True) if len(ring) >= 3]
    if not areas:
        return []
    tree = shapely.STRtree(areas)
    outer, inner = tree.query([area.buffer(_TOUCHING_PX) for area in areas], predicate="covers")
    # Of two equal rings neither is within the other.
    sizes = np.array([area.area for area in areas])
    within = (outer != inner) & (sizes[outer] > sizes[inner])
    depths = np.bincount(inner[within], minlength=len(areas))
    drawn = shapely.MultiPolygon()
    for depth in range(int(depths.max()) + 1):
        here = [number for number in range(len(areas)) if depths[number] == depth]
        taken = [areas[n] for n in here if not marks[n] and depth % 2 == 0]
        cut = [areas[n] for n in here if marks[n] or depth % 2 == 1]
        drawn = shapely.difference(shapely.union_all([drawn, *taken]), shapely.union_all(cut))
    found = []
    for part in shapely.get_parts(drawn):
        if part.geom_type == "Polygon" and part.area > 0:
            exterior, *inside = (
                shapely.get_coordinates(ring)[:-1] for ring in (part.exterior, *part.interiors)
            )
            found.append(region_of(exterior, inside))
    return found


def _drawable(ring: NDArray[Any]) -> NDArray[np.float64]:
    """Return a ring as the viewer can draw it, within a tenth of a pixel.

    Its triangulation in Python, where no faster one is installed, fails on many points of equal coordinates,
    which outlines that follow a grid have.
    """
    import shapely

    # As a line: along the border of the image a ring may touch itself.
    line = shapely.LineString(np.concatenate([ring, ring[:1]])).simplify(_BEND_PX, preserve_topology=False)
    points = shapely.get_coordinates(line)[:-1]
    if len(points) < 3:
        points = np.asarray(ring, np.float64)
    return points + np.random.default_rng(0).uniform(-_APART_PX, _APART_PX, points.shape)


def _ellipse(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Return points on the ellipse within the box of four corners."""
    box = np.asarray(corners, np.float64)
    center, across, down = box.mean(axis=0), (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)[:, np.newaxis]
    points: NDArray[np.float64] = center + np.cos(angles) * across + np.sin(angles) * down
    return points


def _probability_colors() -> Any:
    """Return the colors of probabilities: tissue is seen through low ones, as in the microscope."""
    from napari.utils.colormaps import Colormap

    return Colormap(
        [(0, 0.8, 0, 0), (0, 0.8, 0, 0), (0, 0.9, 0, 0.45), (1, 1, 0, 0.6)],
        controls=[0, 0.1, 0.5, 1],
        name="tumor probability",
    )


def _model_names() -> tuple[str, ...]:
    """Return the names of the models that find tumor, the usual one first."""
    from lincei.model import list_models

    usual = TumorOptions().model
    names = [model.name for model in list_models("tumor")]
    return tuple(sorted(names, key=lambda name: (name != usual, name))) or (usual,)


def _button(text: str, tooltip: str, clicked: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tooltip)
    button.clicked.connect(lambda _checked=False: clicked())
    return button
