"""A network camera of a few lines: RTSP (RFC 2326) over one connection, JPEG frames in RTP (RFC 2435)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

_PAYLOAD = 1400
_CLOCK_HZ = 90000


class RtspCamera:
    """Serve frames to whoever asks, one viewer at a time, until it is closed.

    Parameters
    ----------
    picture : callable
        Takes the number of a frame and returns its pixels, uint8 red, green, blue; sides are multiples of 8.
    fps : float
        Frames a second.
    """

    def __init__(self, picture: Callable[[int], NDArray[np.uint8]], fps: float = 25) -> None:
        self._picture, self._interval_s = picture, 1 / fps
        self._ended = threading.Event()
        self.silent = threading.Event()  # keeps the connection, sends nothing
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.1)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/microscope"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut the connection, as a camera whose cable is pulled."""
        self._ended.set()
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(self._interval_s)
                try:
                    self._talk(connection)
                except (OSError, EOFError):
                    continue  # the viewer went away

    def _talk(self, connection: socket.socket) -> None:
        heard, playing, number, due_s = b"", False, 0, time.monotonic()
        while not self._ended.is_set():
            try:
                more = connection.recv(4096)
                if not more:
                    raise EOFError
                heard += more
            except TimeoutError:
                pass
            while b"\r\n\r\n" in heard:
                request, _, heard = heard.partition(b"\r\n\r\n")
                connection.sendall(self._answer(request.decode()))
                playing = playing or request.startswith(b"PLAY")
            if playing and time.monotonic() >= due_s and not self.silent.is_set():
                connection.sendall(_packets(self._picture(number), number, number * self._interval_s))
                number, due_s = number + 1, max(due_s + self._interval_s, time.monotonic())

    def _answer(self, request: str) -> bytes:
        lines = request.splitlines()
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        head, body = [f"CSeq: {fields['cseq']}"], ""
        match lines[0].split()[0]:
            case "OPTIONS":
                head.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            case "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=microscope\r\nt=0 0\r\n"
                    f"m=video 0 RTP/AVP 26\r\na=framerate:{1 / self._interval_s:g}\r\na=control:track\r\n"
                )
                head += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            case "SETUP":
                head += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            case _:
                head.append("Session: 1")
        return ("RTSP/1.0 200 OK\r\n" + "\r\n".join(head) + "\r\n\r\n" + body).encode()


def _packets(pixels: NDArray[np.uint8], number: int, time_s: float) -> bytes:
    """Return a frame as RTP packets within the RTSP connection."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    tables, scan = _parts(encoded.tobytes())
    stamp = int(time_s * _CLOCK_HZ) & 0xFFFFFFFF
    height, width, _ = pixels.shape
    packets, offset = b"", 0
    while offset < len(scan):
        part = scan[offset : offset + _PAYLOAD]
        last = offset + len(part) == len(scan)
        # Kind 1: colors at half resolution both ways; quality 255: the tables come with the frame.
        jpeg = struct.pack(">I", offset) + bytes((1, 255, width // 8, height // 8))
        if offset == 0:
            jpeg += struct.pack(">BBH", 0, 0, len(tables)) + tables
        count = (number * 100 + offset // _PAYLOAD) & 0xFFFF
        packet = struct.pack(">BBHII", 0x80, 26 | (last << 7), count, stamp, 1) + jpeg + part
        packets += b"$\0" + struct.pack(">H", len(packet)) + packet
        offset += len(part)
    return packets


def _parts(jpeg: bytes) -> tuple[bytes, bytes]:
    """Return the quantization tables and the compressed data of a baseline JPEG."""
    place, tables = 2, b""
    while True:
        marker, length = struct.unpack(">HH", jpeg[place : place + 4])
        segment = jpeg[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == 0xFFDB:
            while segment:
                tables, segment = tables + segment[1:65], segment[65:]
        elif marker == 0xFFDA:
            return tables, jpeg[place:-2]
