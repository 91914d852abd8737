"""What is shown over a frame: a description that any display can draw, and that travels between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

MODES = ("outline", "heatmap", "text", "arrows", "animation")
MODE_NAMES = {
    "outline": "Outline",
    "heatmap": "Heat map",
    "text": "Text",
    "arrows": "Arrows",
    "animation": "Pulse",
}


@dataclass(frozen=True, eq=False)
class Region:
    """One region, outlined.

    Parameters
    ----------
    exterior : ndarray
        Shape (N, 2), float32: x and y of its corners in pixels of the frame; the center of the first pixel is
        (0, 0). Not closed: the last corner is joined to the first.
    holes : tuple of ndarray
        The outlines of its holes, alike.
    area_px : float
        Its area without holes, in square pixels of the frame.
    diameter_px : float
        Its largest diameter (the longest distance between two of its points), in pixels of the frame.
    score : float
        Mean probability in it, 0 to 1.
    """

    exterior: NDArray[Any]
    holes: tuple[NDArray[Any], ...] = ()
    area_px: float = 0.0
    diameter_px: float = 0.0
    score: float = 0.0


@dataclass(frozen=True)
class Arrow:
    """An arrow at the border of the view.

    Parameters
    ----------
    tip_px : tuple of float
        x and y of its tip in pixels of the frame.
    angle_deg : float
        Where it points: 0 to the right, 90 down.
    outside : bool
        True when it points to a region outside the view; else to one inside, near the border.
    """

    tip_px: tuple[float, float]
    angle_deg: float
    outside: bool = False


@dataclass(frozen=True)
class Shown:
    """A report of the display: which frame's overlay was lit, and when.

    Parameters
    ----------
    frame_number : int
    frame_time_s : float
        Of the frame.
    time_s : float
        When its overlay was lit, on the clock of `time.monotonic`.
    draw_ms : float
        Time that warping and drawing took.
    """

    frame_number: int
    frame_time_s: float
    time_s: float
    draw_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class Overlay:
    """What belongs over one frame. Positions are in pixels of that frame; displays warp them.

    Parameters
    ----------
    frame_number, frame_time_s, frame_size_px
        Of the frame it belongs to (`arm_overlay.frames.Frame`); the size is width, height.
    mode : str
        One of `MODES`.
    blank_reason : str
        Why nothing may be shown in the eyepiece ("focus", "slide too fast", "no model for this objective",
        ...); empty when the overlay may be shown. A blank overlay has no regions, arrows, points or texts.
    regions : tuple of Region
        The largest first.
    heat_map : ndarray or None
        Shape (Y, X), uint8, 255 = certain, covering the frame; for the mode "heatmap" and for records.
    points : ndarray or None
        Shape (N, 2), float32, x and y, from a model that finds points.
    arrows : tuple of Arrow
        For the mode "arrows".
    texts : tuple of str
        Lines for the mode "text", and what a model answers that draws nothing (classes, a number).
    measures : mapping of str to float
        ``percent_tumor``, ``largest_diameter_um`` (only where the pixel size is known), ``field_score``, and
        ``count`` or a model's own number.
    objective, model : str
        What it was computed for.
    pixel_size_um : float or None
        Of the frame.
    threshold : float or None
        The probability above which a pixel counts as tumor here: the operator's, or the model's own for the
        objective. None where none is in effect, or it is not known yet.
    shift_px : tuple of float
        How far the tissue moved since the frame before, x and y in pixels of the frame.
    speed_fields_s : float
        How fast the slide moves, in widths of the view a second.
    timings_ms : mapping of str to float
        Time that each stage took for this frame.
    """

    frame_number: int
    frame_time_s: float
    frame_size_px: tuple[int, int]
    mode: str = "outline"
    blank_reason: str = ""
    regions: tuple[Region, ...] = ()
    heat_map: NDArray[Any] | None = None
    points: NDArray[Any] | None = None
    arrows: tuple[Arrow, ...] = ()
    texts: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    objective: str = ""
    model: str = ""
    pixel_size_um: float | None = None
    threshold: float | None = None
    shift_px: tuple[float, float] = (0.0, 0.0)
    speed_fields_s: float = 0.0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
