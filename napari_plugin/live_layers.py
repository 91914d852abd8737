"""The layers of a live view: the camera's picture, and the overlay in layers of its own over it.

A layer's array is overwritten in place and the layer drawn anew: outlines as shapes or vectors, with new ones
for each frame, take several times as long (`benchmarks/napari_live.py`). Arrows and texts are drawn into the
layer of the outlines, by what also draws them in the eyepiece.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.developing import Developing, shrunken
from napari_plugin.layers import METADATA_KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image as ImageLayer

    from arm_overlay.frames import Frame
    from arm_overlay.overlay import Overlay
    from arm_overlay.rendering import Renderer

PICTURE, OUTLINE, HEAT_MAP = "microscope", "microscope outline", "microscope heat map"
# Unless the full resolution is asked for, pictures are halved until their longer side is no longer than this.
LONGEST_PX = 1024


class LiveLayers:
    """Shows frames and their overlays in a viewer; all in the window's thread.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.

    Attributes
    ----------
    full_resolution : bool
        Whether each pixel of the camera is shown.
    shown : int
        Frames that were shown.
    picture_px : tuple of int
        Width and height of the picture that is shown.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.full_resolution = False
        self.shown = 0
        self.picture_px = (0, 0)
        self._layers: dict[str, ImageLayer] = {}
        self._placings: dict[str, dict[str, Any]] = {}
        self._removed: set[str] = set()
        self._renderer: Renderer | None = None
        self._has_ink = self._has_heat = False
        self._pixel_size_um: float | None = None

    def begin(self) -> None:
        """Begin anew: layers that the user has removed come again."""
        self._removed.clear()

    @property
    def is_removed(self) -> bool:
        """Whether the user has removed the picture from the viewer."""
        return PICTURE in self._removed

    def show(
        self, frame: Frame, overlay: Overlay, developing: Developing, *, dark: bool, time_s: float
    ) -> None:
        """Show a frame with its overlay.

        Parameters
        ----------
        frame, overlay : Frame, Overlay
            What belongs together.
        developing : Developing
            White balance and flat field.
        dark : bool
            Whether the overlay is left out.
        time_s : float
            A clock, for an outline that pulses.
        """
        picture = shrunken(frame, self._size_px(frame.size_px), developing)
        self.picture_px = (picture.shape[1], picture.shape[0])
        is_first = PICTURE not in self._layers
        resized = overlay.pixel_size_um is not None and overlay.pixel_size_um != self._pixel_size_um
        if resized:
            self._pixel_size_um = overlay.pixel_size_um
        about = {
            name: value
            for name, value in (
                ("model", overlay.model),
                ("objective", overlay.objective),
                ("threshold", overlay.threshold),
            )
            if value
        }
        self._put(PICTURE, picture, frame.size_px, about)
        self._show_ink(overlay, frame.size_px, about, dark=dark, time_s=time_s)
        self._show_heat(overlay, frame.size_px, about, dark=dark)
        if is_first or resized:
            # Another objective shows a field of another size.
            self._viewer.reset_view()
        self.shown += 1

    def clear_overlay(self) -> None:
        """Take the overlay away: what it belongs to is over."""
        if not (self._has_ink or self._has_heat):
            return
        for name in (OUTLINE, HEAT_MAP):
            layer = self._layers.get(name)
            if layer is not None and layer in self._viewer.layers and np.any(layer.data):
                layer.data[...] = 0
                self._draw_anew(layer)
        self._has_ink = self._has_heat = False

    def finish(self) -> None:
        """Let the layer list show what the layers show now."""
        for layer in self._layers.values():
            if layer in self._viewer.layers:
                layer.refresh()

    def _size_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Return what a frame is to fit into; halves are quick, since a mosaic's cell is one pixel then."""
        halvings = 0
        while not self.full_resolution and max(size_px) / 2**halvings > LONGEST_PX:
            halvings += 1
        return max(1, size_px[0] >> halvings), max(1, size_px[1] >> halvings)

    def _show_ink(
        self,
        overlay: Overlay,
        frame_size_px: tuple[int, int],
        about: dict[str, Any],
        *,
        dark: bool,
        time_s: float,
    ) -> None:
        """Show outlines, points, arrows and texts."""
        drawn = bool(overlay.regions or overlay.arrows or overlay.texts or overlay.points is not None)
        has_ink = drawn and not dark and not overlay.blank_reason
        if not has_ink and not self._has_ink and self._fits(OUTLINE, self.picture_px):
            return
        # Loads OpenCV, which a widget that is only opened does without.
        from arm_overlay.rendering import GREEN, Renderer

        if self._renderer is None or self._renderer.size_px != self.picture_px:
            self._renderer = Renderer(self.picture_px)
        if has_ink:
            # The heat map has a layer of its own.
            ink = self._renderer.draw(dataclasses.replace(overlay, heat_map=None), time_s=time_s)
            pixels: NDArray[np.uint8] = ink[..., GREEN.index(255)]
        else:
            pixels = np.zeros(self.picture_px[::-1], np.uint8)
        self._has_ink = has_ink
        clear = [*(value / 255 for value in GREEN), 0.0]
        self._put(OUTLINE, pixels, frame_size_px, about, colors=np.array([clear, [*clear[:3], 1.0]]))

    def _show_heat(
        self, overlay: Overlay, frame_size_px: tuple[int, int], about: dict[str, Any], *, dark: bool
    ) -> None:
        """Show the heat map."""
        from arm_overlay.rendering import heat_colors_over

        heat = overlay.heat_map if overlay.mode == "heatmap" and not overlay.blank_reason else None
        if heat is None or dark:
            if self._has_heat and HEAT_MAP in self._layers:
                self._has_heat = False
                pixels = np.zeros_like(self._layers[HEAT_MAP].data)
                self._put(HEAT_MAP, pixels, frame_size_px, about, colors=heat_colors_over())
            return
        self._has_heat = True
        self._put(HEAT_MAP, heat, frame_size_px, about, colors=heat_colors_over(), interpolation2d="linear")

    def _fits(self, name: str, size_px: tuple[int, int]) -> bool:
        """Tell whether a layer is there, with an array of a size."""
        if name in self._removed:
            return True
        layer = self._layers.get(name)
        return layer is not None and layer.data.shape[1::-1] == size_px

    def _put(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        frame_size_px: tuple[int, int],
        about: dict[str, Any],
        *,
        colors: NDArray[Any] | None = None,
        **keywords: Any,
    ) -> None:
        """Show pixels that cover the frame in a layer."""
        if name in self._removed:
            return
        layer = self._layers.get(name)
        if layer is not None and layer not in self._viewer.layers:
            # Who removes a layer does not want it; it comes again with the next start.
            del self._layers[name]
            self._removed.add(name)
            return
        placed = self._placed(pixels.shape[:2], frame_size_px)
        if layer is None:
            if colors is not None:
                from napari.utils.colormaps import Colormap

                keywords["colormap"] = Colormap(colors, name=name)
                keywords["contrast_limits"] = (0, 255)
                keywords["blending"] = "translucent_no_depth"
            layer = self._viewer.add_image(
                np.array(pixels),
                name=name,
                rgb=colors is None,
                metadata={METADATA_KEY: about},
                **placed,
                **keywords,
            )
            self._layers[name], self._placings[name] = layer, placed
            return
        if layer.data.shape != pixels.shape:
            layer.data = np.array(pixels)
        else:
            layer.data[...] = pixels
            self._draw_anew(layer)
        if self._placings[name] != placed:
            self._placings[name] = placed
            layer.scale, layer.translate = placed["scale"], placed["translate"]
            layer.units = placed["units"]
        if layer.metadata.get(METADATA_KEY) != about:
            layer.metadata[METADATA_KEY] = about

    def _draw_anew(self, layer: ImageLayer) -> None:
        """Draw a layer whose array was overwritten.

        What is drawn is a view of the array, so that it need not be sliced again; and the layer list, which
        would be painted with each event of a layer, shows nothing that has changed.
        """
        if layer.visible:
            with self._viewer.layers.events.blocker():
                layer.events.set_data()

    def _placed(self, shape: tuple[int, int], frame_size_px: tuple[int, int]) -> dict[str, Any]:
        """Return where an array lies that covers the frame: in um where the size of a pixel is known."""
        size_um = self._pixel_size_um
        steps = [frame_size_px[1] / shape[0], frame_size_px[0] / shape[1]]
        unit_per_px = 1.0 if size_um is None else size_um
        return {
            "scale": tuple(unit_per_px * step for step in steps),
            # The middle of the first pixel of the camera is the origin.
            "translate": tuple(unit_per_px * (step - 1) / 2 for step in steps),
            "units": ("pixel" if size_um is None else "um",) * 2,
        }
