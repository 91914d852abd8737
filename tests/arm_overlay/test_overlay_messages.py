"""Messages to the microdisplay: the same comes out that went in, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arm_overlay.overlay import Arrow, Overlay, Region
from arm_overlay.overlay_messages import DisplayMessage, MessageError, decode, encode, read_message
from arm_overlay.rendering import Style

START = struct.Struct("<4sBxxxII")


def ring(corners: int, size: float = 10.0) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return (size * np.stack([np.cos(angles), np.sin(angles)], axis=1) + 50).astype(np.float32)


FULL = DisplayMessage(
    overlay=Overlay(
        frame_number=41,
        frame_time_s=1234.5678,
        frame_size_px=(1920, 1200),
        mode="arrows",
        regions=(
            Region(ring(17), (ring(5, 2), ring(3, 1)), 300.5, 20.25, 0.875),
            Region(ring(3), (), 1, 2, 0.5),
        ),
        heat_map=np.arange(150 * 240, dtype=np.uint32).reshape(150, 240).astype(np.uint8),
        points=np.array([(1.5, 2.5), (3, 4)], np.float32),
        arrows=(Arrow((3.5, 4.0), -45.0, outside=True), Arrow((0.0, 0.0), 90.0)),
        texts=("tumor 23 %", "größte: 812 µm"),
        measures={"percent_tumor": 23.5},
        objective="20x",
        model="tumor-breast",
        pixel_size_um=0.25,
        threshold=0.375,
        shift_px=(1.5, -2.0),
        speed_fields_s=0.125,
        timings_ms={"inference": 12.5},
    ),
    warp=np.array([(0.9, 0.1, 20), (-0.1, 1.1, 3), (1e-5, 0, 1)]),
    style=Style((10, 20, 30), 4, 0.5, (0.5, 0.4, 0.9), research_note=True),
    frame_interval_s=0.04,
    hidden="hidden by the operator",
    picture=np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3),
    picture_until_s=99.5,
)


def same(one: Any, other: Any) -> bool:
    """Tell whether two messages, or parts of them, are equal in type and value."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, known.name), getattr(other, known.name)) for known in dataclasses.fields(one)
        )
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    "message",
    [
        FULL,
        DisplayMessage(),
        DisplayMessage(Overlay(0, 0.0, (1, 1))),
        DisplayMessage(Overlay(0, 0.0, (1, 1), points=np.zeros((0, 2), np.float32)), np.eye(3)),
        DisplayMessage(picture=np.eye(9, dtype=np.uint8), picture_until_s=1.0),
    ],
    ids=["full", "empty", "empty overlay", "no points", "picture"],
)
def test_what_goes_in_comes_out(message: DisplayMessage) -> None:
    assert same(message, decode(encode(message)))
    # `same` tells messages apart.
    assert not same(message, dataclasses.replace(message, frame_interval_s=9.0))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_outlines_come_out_as_they_went_in(data: st.DataObject) -> None:
    counts = st.integers(0, 9)
    regions = tuple(
        Region(
            ring(data.draw(counts)),
            tuple(ring(data.draw(counts)) for _ in range(data.draw(st.integers(0, 3)))),
        )
        for _ in range(data.draw(st.integers(0, 5)))
    )
    message = DisplayMessage(Overlay(0, 0.0, (10, 10), regions=regions))
    assert same(message, decode(encode(message)))


def test_arrays_of_the_frame_may_be_of_any_layout() -> None:
    turned = np.asfortranarray(ring(6))[::-1]
    overlay = Overlay(
        0,
        0.0,
        (9, 9),
        regions=(Region(turned.astype(np.float64)),),
        heat_map=np.eye(8, dtype=np.uint8)[:, ::2],
    )
    decoded = decode(encode(DisplayMessage(overlay))).overlay
    assert decoded is not None
    assert decoded.heat_map is not None
    assert np.array_equal(decoded.regions[0].exterior, turned)
    assert np.array_equal(decoded.heat_map, np.eye(8)[:, ::2])


def test_why_nothing_is_shown() -> None:
    overlay, warp = Overlay(0, 0.0, (9, 9)), np.eye(3)
    assert DisplayMessage(overlay, warp).blank_reason == ""
    assert DisplayMessage(overlay, warp, hidden="hidden").blank_reason == "hidden"
    assert DisplayMessage(overlay, None).blank_reason == "not aligned"
    assert DisplayMessage(dataclasses.replace(overlay, blank_reason="focus"), warp).blank_reason == "focus"
    assert DisplayMessage(warp=warp).blank_reason == "nothing to show"
    assert DisplayMessage(picture=np.eye(3, dtype=np.uint8)).blank_reason == ""


def with_header(**changes: Any) -> bytes:
    """Return the full message with other values in its header."""
    data = encode(FULL)
    _, version, header_bytes, array_bytes = START.unpack(data[: START.size])
    header = json.loads(data[START.size : START.size + header_bytes])
    for name, value in changes.items():
        target, *inner = name.split("__")
        if inner:
            header[target][inner[0]] = value
        else:
            header[target] = value
    text = json.dumps(header).encode()
    return START.pack(b"LNCO", version, len(text), array_bytes) + text + data[START.size + header_bytes :]


def test_a_header_written_anew_is_taken() -> None:
    assert same(FULL, decode(with_header()))


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_interval_s": 0},
        {"frame_interval_s": -1.0},
        {"frame_interval_s": 1e9},
        {"frame_interval_s": float("nan")},
        {"frame_interval_s": "0.1"},
        {"hidden": True},
        {"overlay": 3},
        {"overlay": {}},
        {"overlay__frame_time_s": float("inf")},
        {"overlay__frame_time_s": None},
        {"overlay__frame_size_px": [0, 5]},
        {"overlay__frame_size_px": [5]},
        {"overlay__mode": "movie"},
        {"overlay__texts": [3]},
        {"overlay__arrows": [[1, 2, 3]]},
        {"overlay__measures": []},
        {"overlay__speed_fields_s": 10**400},
        {"overlay__frame_number": 1.5},
        {"style__color": [1, 2]},
        {"style__color": [1, 2, 256]},
        {"style__brightness": 0},
        {"style__more": 1},
        {"style__field_of_view": [0.5, 0.5, 0]},
        {"arrays": []},
        {"arrays": [["heat_map", "uint8", [150, 240]]]},
        {"arrays": [["heat_map", "object", [1]]]},
        {"arrays": [["heat_map", "uint8", [-1]]]},
        {"arrays": [["heat_map", "uint8", [1 << 40, 1 << 40]]]},
        {"arrays": None},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode(with_header(**changes))


@pytest.mark.parametrize(
    "broken",
    [
        dataclasses.replace(FULL, warp=np.eye(2)),
        dataclasses.replace(FULL, warp=np.full((3, 3), np.nan)),
        dataclasses.replace(FULL, picture=np.zeros((4, 4, 4), np.uint8)),
        dataclasses.replace(FULL, picture=np.zeros((4, 4), np.float32)),
        DisplayMessage(Overlay(0, 0.0, (9, 9), heat_map=np.zeros((4, 4), np.float32))),
        DisplayMessage(Overlay(0, 0.0, (9, 9), points=np.full((1, 2), np.inf))),
        DisplayMessage(Overlay(0, 0.0, (9, 9), regions=(Region(np.full((3, 2), np.nan)),))),
    ],
)
def test_arrays_that_cannot_be_drawn_are_refused(broken: DisplayMessage) -> None:
    data = encode(broken)
    with pytest.raises(MessageError):
        decode(data)


def test_numbers_that_are_not_finite_are_refused_where_they_are_sent() -> None:
    with pytest.raises(MessageError, match="cannot be sent"):
        encode(DisplayMessage(Overlay(0, float("nan"), (9, 9))))


def test_bytes_cut_off_or_added_are_refused() -> None:
    data = encode(FULL)
    for length in (0, 3, START.size, START.size + 10, len(data) - 1):
        with pytest.raises(MessageError):
            decode(data[:length])
    with pytest.raises(MessageError):
        decode(data + b"\0")


def test_another_program_or_version_is_refused() -> None:
    data = encode(FULL)
    with pytest.raises(MessageError, match="no message to the display"):
        decode(b"PNG " + data[4:])
    with pytest.raises(MessageError, match=r"version 9.*same lincei"):
        decode(data[:4] + b"\x09" + data[5:])


@given(st.integers(0, len(encode(FULL)) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_refused_or_changes_a_value_and_never_more(place: int, change: int) -> None:
    data = bytearray(encode(FULL))
    data[place] ^= change
    try:
        decoded = decode(bytes(data))
    except MessageError:
        return
    assert decoded.overlay is None or decoded.overlay.mode in (
        "outline",
        "arrows",
        "heatmap",
        "text",
        "animation",
    )


def test_messages_are_read_from_a_pipe_one_after_the_other() -> None:
    first, second = encode(FULL), encode(DisplayMessage())
    pipe = io.BytesIO(first + second)
    assert read_message(pipe) == first
    assert read_message(pipe) == second
    assert read_message(pipe) is None


def test_a_pipe_that_ends_within_a_message_or_holds_none_is_refused() -> None:
    data = encode(FULL)
    for length in (5, START.size + 1, len(data) - 1):
        with pytest.raises(MessageError, match="end within one"):
            read_message(io.BytesIO(data[:length]))
    with pytest.raises(MessageError, match="no message"):
        read_message(io.BytesIO(b"x" * 100))


def test_a_length_that_would_fill_the_memory_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="4295 MB"):
        read_message(io.BytesIO(START.pack(b"LNCO", 1, 0, 0xFFFFFFFF)))


def test_a_thousand_regions_are_sent_in_the_time_of_one_frame() -> None:
    regions = tuple(Region(ring(40)) for _ in range(1000))
    message = DisplayMessage(Overlay(0, 0.0, (1920, 1200), regions=regions), np.eye(3))
    times_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        decoded = decode(encode(message))
        times_s.append(time.perf_counter() - began_s)
    assert decoded.overlay is not None
    assert len(decoded.overlay.regions) == 1000
    # A few milliseconds; generous, since the machine may be busy.
    assert min(times_s) < 0.1
