"""What travels to the microdisplay's process: an overlay and how to show it, as bytes.

A message is ``LNCO``, the format's version, the length of a JSON header and of the arrays after it, the
header, the arrays. Nothing in it is executed, and what does not fit exactly is refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from arm_overlay.overlay import MODES, Arrow, Overlay, Region
from arm_overlay.rendering import Style
from lincei.errors import LinceiError

VERSION = 1
# Far beyond any overlay; a 4K picture in color has 25 million bytes.
LARGEST_BYTES = 64_000_000
# A display that waits longer for its next frame would show a stale one.
LONGEST_INTERVAL_S = 10.0

_START = struct.Struct("<4sBxxxII")
_MAGIC = b"LNCO"
_TYPES = {"float32": 2, "int32": 1, "uint8": None, "float64": 2}


class MessageError(LinceiError):
    """Bytes that are no message to the microdisplay."""


@dataclass(frozen=True, eq=False)
class DisplayMessage:
    """What the microdisplay is to show until the next message.

    Parameters
    ----------
    overlay : Overlay or None
        What to draw; None, or a blank one: nothing.
    warp : ndarray or None
        Shape (3, 3), float64: from pixels of the frame to pixels of the display. None: not aligned, so that
        the overlay is not shown.
    style : Style
        How to draw, brightness included.
    frame_interval_s : float
        The next frame is due this long after the overlay's; a stale overlay is taken away soon after.
    hidden : str
        Why nothing is to be shown, whatever the overlay is; empty otherwise.
    picture : ndarray or None
        Shape (Y, X) or (Y, X, 3), uint8, in pixels of the display: shown in place of an overlay, to align
        camera and display.
    picture_until_s : float
        When the picture is taken away, on the clock of `time.monotonic`.
    """

    overlay: Overlay | None = None
    warp: NDArray[np.float64] | None = None
    style: Style = field(default_factory=Style)
    frame_interval_s: float = 0.1
    hidden: str = ""
    picture: NDArray[np.uint8] | None = None
    picture_until_s: float = 0.0

    @property
    def blank_reason(self) -> str:
        """Why nothing may be shown; empty when something may."""
        if self.hidden:
            return self.hidden
        if self.picture is not None:
            return ""
        if self.overlay is None:
            return "nothing to show"
        return self.overlay.blank_reason or ("not aligned" if self.warp is None else "")


def encode(message: DisplayMessage) -> bytes:
    """Return a message as bytes.

    Raises
    ------
    MessageError
        When it holds what cannot be shown, such as numbers that are not finite.
    """
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {
        "style": dataclasses.asdict(message.style),
        "frame_interval_s": message.frame_interval_s,
        "hidden": message.hidden,
        "picture_until_s": message.picture_until_s,
        "overlay": None,
    }
    if message.warp is not None:
        arrays["warp"] = np.asarray(message.warp, np.float64)
    if message.picture is not None:
        arrays["picture"] = np.asarray(message.picture)
    if message.overlay is not None:
        header["overlay"] = _overlay_header(message.overlay, arrays)
    # Wide numbers first, and a header of whole words: each array lies where it may be used as it is.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    arrays = {name: np.ascontiguousarray(array) for name, array in ordered}
    header["arrays"] = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    try:
        text = json.dumps(header, allow_nan=False).encode()
    except ValueError as error:
        raise MessageError(f"the overlay cannot be sent to the display: {error}") from error
    text += b" " * (-len(text) % 8)
    size = sum(array.nbytes for array in arrays.values())
    if len(text) + size > LARGEST_BYTES:
        raise MessageError(
            f"the overlay has {(len(text) + size) / 1e6:.0f} MB, too much to send to the display"
        )
    return b"".join([_START.pack(_MAGIC, VERSION, len(text), size), text, *(a.data for a in arrays.values())])


def decode(data: bytes) -> DisplayMessage:
    """Return the message that bytes hold.

    Raises
    ------
    MessageError
        When they are not exactly one message.
    """
    if len(data) < _START.size:
        raise MessageError(f"a message to the display ends after {len(data)} bytes")
    header_bytes, array_bytes = _lengths(data[: _START.size])
    if len(data) != _START.size + header_bytes + array_bytes:
        raise MessageError(
            f"a message to the display has {len(data)} bytes, not {_START.size + header_bytes + array_bytes}"
        )
    return _decoded(memoryview(data)[_START.size :], header_bytes)


def read_message(stream: BinaryIO) -> bytes | None:
    """Read the bytes of one message from a pipe, for `decode`; None at its end.

    Raises
    ------
    MessageError
        When the stream holds something else, or ends within a message: nothing after it can be trusted.
    """
    start = stream.read(_START.size)
    if not start:
        return None
    if len(start) < _START.size:
        raise MessageError("the messages to the display end within one")
    rest_bytes = sum(_lengths(start))
    rest = stream.read(rest_bytes)
    if len(rest) < rest_bytes:
        raise MessageError("the messages to the display end within one")
    return start + rest


def _lengths(start: bytes) -> tuple[int, int]:
    """Return the lengths of header and arrays, checked."""
    magic, version, header_bytes, array_bytes = _START.unpack(start)
    if magic != _MAGIC:
        raise MessageError("this is no message to the display")
    if version != VERSION:
        raise MessageError(
            f"a message to the display has the version {version}, not {VERSION}",
            "",
            "Both sides must be of the same lincei.",
        )
    if header_bytes + array_bytes > LARGEST_BYTES:
        raise MessageError(f"a message to the display has {(header_bytes + array_bytes) / 1e6:.0f} MB")
    return header_bytes, array_bytes


def _overlay_header(overlay: Overlay, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what of an overlay goes into the header; put the rest into ``arrays``."""
    if overlay.regions:
        # One array for all outlines: a thousand small ones would take most of the time.
        rings = [ring for region in overlay.regions for ring in (region.exterior, *region.holes)]
        arrays["corners"] = np.concatenate(rings).astype(np.float32, copy=False).reshape(-1, 2)
        arrays["ring_lengths"] = np.array([len(ring) for ring in rings], np.int32)
        arrays["region_holes"] = np.array([len(region.holes) for region in overlay.regions], np.int32)
        arrays["region_numbers"] = np.array(
            [(region.area_px, region.diameter_px, region.score) for region in overlay.regions], np.float64
        )
    if overlay.heat_map is not None:
        arrays["heat_map"] = np.asarray(overlay.heat_map)
    if overlay.points is not None:
        arrays["points"] = np.asarray(overlay.points, np.float32).reshape(-1, 2)
    return {
        "frame_number": int(overlay.frame_number),
        "frame_time_s": float(overlay.frame_time_s),
        "frame_size_px": [int(side) for side in overlay.frame_size_px],
        "mode": overlay.mode,
        "blank_reason": overlay.blank_reason,
        "arrows": [
            [*map(float, arrow.tip_px), float(arrow.angle_deg), arrow.outside] for arrow in overlay.arrows
        ],
        "texts": list(overlay.texts),
        "measures": {name: float(value) for name, value in overlay.measures.items()},
        "objective": overlay.objective,
        "model": overlay.model,
        "pixel_size_um": None if overlay.pixel_size_um is None else float(overlay.pixel_size_um),
        "threshold": None if overlay.threshold is None else float(overlay.threshold),
        "shift_px": [float(shift) for shift in overlay.shift_px],
        "speed_fields_s": float(overlay.speed_fields_s),
        "timings_ms": {name: float(value) for name, value in overlay.timings_ms.items()},
    }


def _decoded(body: memoryview, header_bytes: int) -> DisplayMessage:
    """Return the message of a header and arrays."""
    try:
        header = json.loads(bytes(body[:header_bytes]), parse_constant=_refuse_constant)
        arrays = _arrays(header["arrays"], body[header_bytes:])
        overlay = None if header["overlay"] is None else _overlay(header["overlay"], arrays)
        message = DisplayMessage(
            overlay=overlay,
            warp=_checked_warp(arrays.pop("warp", None)),
            style=_style(header["style"]),
            frame_interval_s=_number(header["frame_interval_s"]),
            hidden=_text(header["hidden"]),
            picture=arrays.pop("picture", None),
            picture_until_s=_number(header["picture_until_s"]),
        )
    except MessageError:
        raise
    except (
        *(KeyError, TypeError, ValueError, AttributeError),
        *(ArithmeticError, RecursionError, LinceiError),
    ) as error:
        raise MessageError(f"a message to the display is damaged: {error!r}") from error
    if arrays:
        raise MessageError(f"a message to the display has unknown arrays: {', '.join(arrays)}")
    if not 0 < message.frame_interval_s <= LONGEST_INTERVAL_S:
        raise MessageError(
            f"the time between frames is {message.frame_interval_s} s",
            "",
            f"It must be above 0 and at most {LONGEST_INTERVAL_S:.0f} s.",
        )
    picture = message.picture
    if picture is not None and not (
        picture.dtype == np.uint8 and (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3))
    ):
        raise MessageError(f"a picture for the display has the shape {picture.shape}, type {picture.dtype}")
    return message


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _arrays(entries: Any, data: memoryview) -> dict[str, NDArray[Any]]:
    """Return the arrays, which fill the bytes exactly."""
    arrays: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, type_name, shape in entries:
        if type_name not in _TYPES or name in arrays:
            raise ValueError(f"array {name!r} of type {type_name!r}")
        if not all(isinstance(side, int) and side >= 0 for side in shape) or len(shape) > 3:
            raise ValueError(f"array {name!r} of shape {shape!r}")
        if _TYPES[type_name] not in (None, len(shape)):
            raise ValueError(f"array {name!r} of shape {shape!r}")
        count = math.prod(shape)
        dtype = np.dtype(type_name)
        end = offset + count * dtype.itemsize
        if end > len(data):
            raise ValueError(f"array {name!r} ends after the message")
        arrays[name] = np.frombuffer(data[offset:end], dtype).reshape(shape)
        if dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"array {name!r} has numbers that are not finite")
        offset = end
    if offset != len(data):
        raise ValueError(f"{len(data) - offset} bytes are left")
    return arrays


def _overlay(header: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> Overlay:
    """Return the overlay; take its arrays out of ``arrays``."""
    width, height = (_whole(side) for side in header["frame_size_px"])
    if not (0 < width < 1 << 20 and 0 < height < 1 << 20):
        raise ValueError(f"a frame of {width} by {height} pixels")
    if header["mode"] not in MODES:
        raise ValueError(f"mode {header['mode']!r}")
    heat_map = arrays.pop("heat_map", None)
    if heat_map is not None and (heat_map.dtype != np.uint8 or heat_map.ndim != 2):
        raise ValueError(f"a heat map of shape {heat_map.shape}, type {heat_map.dtype}")
    points = arrays.pop("points", None)
    if points is not None and points.shape[1:] != (2,):
        raise ValueError(f"points of shape {points.shape}")
    return Overlay(
        frame_number=_whole(header["frame_number"]),
        frame_time_s=_number(header["frame_time_s"]),
        frame_size_px=(width, height),
        mode=header["mode"],
        blank_reason=_text(header["blank_reason"]),
        regions=_regions(arrays),
        heat_map=heat_map,
        points=points,
        arrows=tuple(
            Arrow((_number(x), _number(y)), _number(angle), _boolean(outside))
            for x, y, angle, outside in header["arrows"]
        ),
        texts=tuple(_text(line) for line in header["texts"]),
        measures=_numbers(header["measures"]),
        objective=_text(header["objective"]),
        model=_text(header["model"]),
        pixel_size_um=None if header["pixel_size_um"] is None else _number(header["pixel_size_um"]),
        threshold=None if header["threshold"] is None else _number(header["threshold"]),
        shift_px=_pair(header["shift_px"]),
        speed_fields_s=_number(header["speed_fields_s"]),
        timings_ms=_numbers(header["timings_ms"]),
    )


def _regions(arrays: dict[str, NDArray[Any]]) -> tuple[Region, ...]:
    """Return the regions; take their arrays out of ``arrays``."""
    if "corners" not in arrays:
        return ()
    corners, lengths = arrays.pop("corners"), arrays.pop("ring_lengths")
    holes, numbers = arrays.pop("region_holes"), arrays.pop("region_numbers")
    if (
        [array.dtype.name for array in (corners, lengths, holes, numbers)]
        != ["float32", "int32", "int32", "float64"]
        or corners.shape[1:] != (2,)
        or numbers.shape != (len(holes), 3)
        or (lengths < 0).any()
        or (holes < 0).any()
        or lengths.sum(dtype=np.int64) != len(corners)
        or len(holes) + holes.sum(dtype=np.int64) != len(lengths)
    ):
        raise ValueError("the outlines do not fit together")
    ends = np.cumsum(lengths).tolist()
    rings = [corners[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    regions, first = [], 0
    for count, (area, diameter, score) in zip(holes.tolist(), numbers.tolist(), strict=True):
        regions.append(
            Region(rings[first], tuple(rings[first + 1 : first + 1 + count]), area, diameter, score)
        )
        first += 1 + count
    return tuple(regions)


def _style(header: Mapping[str, Any]) -> Style:
    """Return the style."""
    known = {known.name for known in dataclasses.fields(Style)}
    if set(header) != known:
        raise ValueError(f"a style of {sorted(header)}")
    field_of_view, width = header["field_of_view"], header["line_width_px"]
    red, green, blue = (_whole(value) for value in header["color"])
    return Style(
        color=(red, green, blue),
        line_width_px=None if width is None else _whole(width),
        brightness=_number(header["brightness"]),
        field_of_view=None if field_of_view is None else _triple(field_of_view),
        research_note=_boolean(header["research_note"]),
    )


def _checked_warp(warp: NDArray[Any] | None) -> NDArray[np.float64] | None:
    if warp is not None and (warp.shape != (3, 3) or warp.dtype != np.float64):
        raise ValueError(f"an alignment of shape {warp.shape}, type {warp.dtype}")
    return warp


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _pair(values: Any) -> tuple[float, float]:
    first, second = (_number(value) for value in values)
    return first, second


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (_number(value) for value in values)
    return first, second, third


def _numbers(values: Any) -> dict[str, float]:
    return {_text(name): _number(value) for name, value in values.items()}
