"""PNG and JPEG pictures, decoded whole when they are first read."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, LinceiWarning
from lincei.formats.lazy import DECODED, DecodedArray, file_key
from lincei.image import Image, full_range, readable_errors, refuse_scene, stem

PNG_COLORS = {0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True)}  # color type -> channels, has alpha
# Start-of-frame markers of JPEG; 0xC4, 0xC8 and 0xCC mean something else.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
TAIL = 2**16


class _Header(NamedTuple):
    """What the first bytes of a picture say."""

    width: int
    height: int
    channels: int
    dtype: type[np.uint8] | type[np.uint16]
    alpha: bool


def open_picture(path: Path, scene: int | None) -> Image:
    """Open a PNG or JPEG, gray or RGB, of 8 or 16 bits; see `lincei.image.open_image`."""
    refuse_scene(scene, 1, path)
    with path.open("rb") as file:
        head = file.read(8)
        is_png = head.startswith(b"\x89PNG")
        file.seek(0)
        header = _png_header(file, path) if is_png else _jpeg_header(file, path)
        file.seek(max(0, path.stat().st_size - TAIL))
        if (b"IEND" if is_png else b"\xff\xd9") not in file.read():
            raise LinceiError(
                "the file is cut short: the end of the picture is missing",
                str(path),
                "Copy it again from where it was made.",
            )
    shape = (1, header.channels, 1, header.height, header.width)

    def decode() -> NDArray[Any]:
        pixels = _decoded(path)[..., : header.channels]
        return np.ascontiguousarray(np.moveaxis(pixels, 2, 0), header.dtype)[np.newaxis, :, np.newaxis]

    if header.alpha:
        _warn_unless_opaque(path, header)
    data = DecodedArray(path, shape, header.dtype, decode)
    return Image(data, name=stem(path), source=str(path), rgb=header.channels == 3)


def _decoded(path: Path) -> NDArray[Any]:
    """Return all samples of a picture, with the axes Y, X, S."""
    import imagecodecs

    with readable_errors(path):
        data = path.read_bytes()
        png = data.startswith(b"\x89PNG")
        pixels: NDArray[Any] = imagecodecs.png_decode(data) if png else imagecodecs.jpeg8_decode(data)
        return pixels.reshape(*pixels.shape[:2], -1)


def _png_header(file: Any, path: Path) -> _Header:
    head = file.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise _no_header(path)
    width, height, depth, color = struct.unpack(">IIBB", head[16:26])
    if color == 3:
        raise LinceiError(
            "its colors are a palette, whose numbers are not intensities",
            str(path),
            "Convert it to 8-bit gray or to RGB first.",
        )
    channels, alpha = PNG_COLORS[color]
    return _Header(width, height, channels, np.uint16 if depth == 16 else np.uint8, alpha)


def _jpeg_header(file: Any, path: Path) -> _Header:
    file.seek(2)
    while True:
        start = file.read(4)
        if len(start) < 4 or start[0] != 0xFF:
            raise _no_header(path)
        marker, length = start[1], int.from_bytes(start[2:], "big")
        if marker == 0xFF:  # a filling byte before the marker
            file.seek(-3, 1)
            continue
        segment = file.read(length - 2)
        if marker in JPEG_FRAMES:
            break
    precision, height, width, components = struct.unpack(">BHHB", segment[:6])
    if precision != 8 or components not in (1, 3):
        raise LinceiError(
            f"it is a JPEG with {components} components of {precision} bits, which is not read",
            str(path),
            "Convert it to gray or RGB of 8 bits first.",
        )
    return _Header(width, height, components, np.uint8, False)


def _no_header(path: Path) -> LinceiError:
    return LinceiError("the file is cut short: its header is not complete", str(path), "Copy it again.")


def _warn_unless_opaque(path: Path, header: _Header) -> None:
    pixels = DECODED.get((*file_key(path), "with alpha"), lambda: _decoded(path))
    limits = full_range(header.dtype)
    if pixels.shape[2] > header.channels and limits and not np.all(pixels[..., -1] == limits[1]):
        warnings.warn(f"{path}: its transparency (alpha channel) is left out.", LinceiWarning, stacklevel=4)
