"""Virtual X servers for tests: two monitors that can be unplugged (Xorg, dummy driver), or one (Xvfb).

What is on a screen is read through Xlib, so that the process that runs the tests needs no Qt application.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_short, c_uint, c_ulong, c_ushort, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

OPERATOR, EYEPIECE = "DUMMY0", "DUMMY1"
OPERATOR_SIZE, EYEPIECE_SIZE = (1600, 900), (1280, 720)
# Of the eyepiece's monitor as well.
OTHER_SIZE = (1024, 768)
# Of the desktop, so that a black window is told from no window.
DESKTOP_RGB = (90, 20, 60)

_START_LIMIT_S = 60.0
_ALL_PLANES = 0xFFFFFFFF
_Z_PIXMAP = 2

_CONFIG = """
Section "ServerFlags"
  Option "AutoAddDevices" "false"
  Option "AutoAddGPU" "false"
  Option "BlankTime" "0"
EndSection
Section "Device"
  Identifier "dummy"
  Driver "dummy"
  VideoRam 64000
EndSection
Section "Monitor"
  Identifier "monitor"
  HorizSync 5-1000
  VertRefresh 5-200
EndSection
Section "Screen"
  Identifier "screen"
  Device "dummy"
  Monitor "monitor"
  DefaultDepth 24
  SubSection "Display"
    Depth 24
    Virtual 4096 2048
  EndSubSection
EndSection
"""


class NoServerError(Exception):
    """A virtual X server cannot be started here; says why."""


class _XImage(ctypes.Structure):
    _fields_ = (
        ("width", c_int),
        ("height", c_int),
        ("xoffset", c_int),
        ("format", c_int),
        ("data", c_void_p),
        ("byte_order", c_int),
        ("bitmap_unit", c_int),
        ("bitmap_bit_order", c_int),
        ("bitmap_pad", c_int),
        ("depth", c_int),
        ("bytes_per_line", c_int),
        ("bits_per_pixel", c_int),
    )


class _CursorImage(ctypes.Structure):
    _fields_ = (
        ("x", c_short),
        ("y", c_short),
        ("width", c_ushort),
        ("height", c_ushort),
        ("xhot", c_ushort),
        ("yhot", c_ushort),
        ("cursor_serial", c_ulong),
        ("pixels", POINTER(c_ulong)),
    )


class _Resources(ctypes.Structure):
    _fields_ = (
        ("timestamp", c_ulong),
        ("config_timestamp", c_ulong),
        ("ncrtc", c_int),
        ("crtcs", POINTER(c_ulong)),
        ("noutput", c_int),
        ("outputs", POINTER(c_ulong)),
    )


class _OutputInfo(ctypes.Structure):
    _fields_ = (("timestamp", c_ulong), ("crtc", c_ulong), ("name", c_char_p))


class VirtualScreens:
    """A running X server.

    Parameters
    ----------
    display : str
        What DISPLAY is to be for its clients.
    """

    def __init__(self, display: str) -> None:
        self.display = display
        self._x11 = _library("libX11.so.6")
        self._x11.XOpenDisplay.restype = c_void_p
        self._x11.XDefaultRootWindow.restype = c_ulong
        self._x11.XDefaultRootWindow.argtypes = [c_void_p]
        self._x11.XGetImage.restype = POINTER(_XImage)
        self._x11.XGetImage.argtypes = [c_void_p, c_ulong, c_int, c_int, c_uint, c_uint, c_ulong, c_int]
        self._x11.XInternAtom.restype = c_ulong
        self._x11.XInternAtom.argtypes = [c_void_p, c_char_p, c_int]
        self._connection = c_void_p(self._x11.XOpenDisplay(display.encode()))
        if not self._connection:
            raise NoServerError(f"no X server answers at {display}")
        self._root = self._x11.XDefaultRootWindow(self._connection)
        red, green, blue = DESKTOP_RGB
        self._x11.XSetWindowBackground(
            self._connection, c_ulong(self._root), c_ulong(red << 16 | green << 8 | blue)
        )
        self.refresh_desktop()

    def close(self) -> None:
        """Disconnect."""
        self._x11.XCloseDisplay(self._connection)

    def refresh_desktop(self) -> None:
        """Paint the desktop where no window is."""
        self._x11.XClearWindow(self._connection, c_ulong(self._root))
        self._x11.XSync(self._connection, c_int(0))

    def pixels(self, x: int, y: int, width: int, height: int) -> RGB:
        """Return what a part of the desktop shows, shape (Y, X, 3), the cursor left out."""
        image = self._x11.XGetImage(self._connection, self._root, x, y, width, height, _ALL_PLANES, _Z_PIXMAP)
        assert image, "the part lies outside the desktop"
        known = image.contents
        assert (known.bits_per_pixel, known.byte_order) == (32, 0)
        data = ctypes.string_at(known.data, known.bytes_per_line * height)
        self._x11.XFree(c_void_p(known.data))
        self._x11.XFree(image)
        rows = np.frombuffer(data, np.uint8).reshape(height, -1)[:, : 4 * width]
        return rows.reshape(height, width, 4)[..., 2::-1]

    def move_pointer(self, x: int, y: int) -> None:
        """Move the mouse's pointer."""
        self._x11.XWarpPointer(
            self._connection,
            c_ulong(0),
            c_ulong(self._root),
            c_int(0),
            c_int(0),
            c_uint(0),
            c_uint(0),
            c_int(x),
            c_int(y),
        )
        self._x11.XSync(self._connection, c_int(0))

    def pointer_is_seen(self) -> bool:
        """Tell whether the pointer has any pixel that is not transparent."""
        fixes = _library("libXfixes.so.3")
        fixes.XFixesGetCursorImage.restype = POINTER(_CursorImage)
        fixes.XFixesGetCursorImage.argtypes = [c_void_p]
        image = fixes.XFixesGetCursorImage(self._connection)
        known = image.contents
        seen = any(known.pixels[index] >> 24 & 255 for index in range(known.width * known.height))
        self._x11.XFree(image)
        return seen


class TwoMonitors(VirtualScreens):
    """A desktop of two monitors: the operator's, primary, on the left; the eyepiece's on the right."""

    def __init__(self, display: str) -> None:
        super().__init__(display)
        # Names of the monitors that tell what they are.
        self._told: set[str] = set()
        # Whether anything was changed since both were plugged in.
        self.changed = True

    def restore(self) -> None:
        """Plug both in as they were at the start."""
        if self.changed:
            self.xrandr("--output", EYEPIECE, "--off")
            self.xrandr("--output", OPERATOR, "--mode", _mode(OPERATOR_SIZE), "--pos", "0x0", "--primary")
            self.plug_in()
            for name in tuple(self._told):
                self.set_edid(name, b"")
            self.changed = False
        self.move_pointer(10, 10)
        self.refresh_desktop()

    def unplug(self, name: str = EYEPIECE) -> None:
        """Switch a monitor off, as when its cable is pulled."""
        self.xrandr("--output", name, "--off")

    def plug_in(self, size_px: tuple[int, int] = EYEPIECE_SIZE) -> None:
        """Switch the eyepiece's monitor on, on the right."""
        self.xrandr("--output", EYEPIECE, "--mode", _mode(size_px), "--right-of", OPERATOR)
        self.refresh_desktop()

    def xrandr(self, *arguments: str) -> None:
        """Change the monitors."""
        self.changed = True
        done = subprocess.run(
            ["xrandr", *arguments],
            env={**os.environ, "DISPLAY": self.display},
            capture_output=True,
            text=True,
            timeout=_START_LIMIT_S,
        )
        assert done.returncode == 0, f"xrandr {' '.join(arguments)}: {done.stderr.strip()}"

    def operator_pixels(self) -> RGB:
        """Return what the operator's monitor shows."""
        return self.pixels(0, 0, *OPERATOR_SIZE)

    def eyepiece_pixels(self, size_px: tuple[int, int] = EYEPIECE_SIZE) -> RGB:
        """Return what the eyepiece's monitor shows."""
        return self.pixels(OPERATOR_SIZE[0], 0, *size_px)

    def eyepiece_is_black(self) -> bool:
        """Tell whether a window covers the eyepiece's monitor and shows nothing."""
        return not self.eyepiece_pixels().any()

    def operator_is_untouched(self) -> bool:
        """Tell whether no window covers any part of the operator's monitor."""
        return bool((self.operator_pixels() == DESKTOP_RGB).all())

    def eyepiece_is_uncovered(self) -> bool:
        """Tell whether no window covers any part of the eyepiece's monitor."""
        self.refresh_desktop()
        return bool((self.eyepiece_pixels() == DESKTOP_RGB).all())

    def set_edid(self, name: str, edid: bytes) -> None:
        """Have a monitor tell what it is; nothing, when empty."""
        self._told = self._told | {name} if edid else self._told - {name}
        randr = _library("libXrandr.so.2")
        randr.XRRGetScreenResourcesCurrent.restype = POINTER(_Resources)
        randr.XRRGetScreenResourcesCurrent.argtypes = [c_void_p, c_ulong]
        randr.XRRGetOutputInfo.restype = POINTER(_OutputInfo)
        randr.XRRGetOutputInfo.argtypes = [c_void_p, POINTER(_Resources), c_ulong]
        randr.XRRChangeOutputProperty.argtypes = [
            *(c_void_p, c_ulong, c_ulong, c_ulong),
            *(c_int, c_int, c_char_p, c_int),
        ]
        resources = randr.XRRGetScreenResourcesCurrent(self._connection, self._root)
        atom = self._x11.XInternAtom(self._connection, b"EDID", 0)
        integer, replace = 19, 0
        for index in range(resources.contents.noutput):
            output = resources.contents.outputs[index]
            info = randr.XRRGetOutputInfo(self._connection, resources, output)
            if info.contents.name == name.encode():
                randr.XRRChangeOutputProperty(
                    self._connection, output, atom, integer, 8, replace, edid, len(edid)
                )
            randr.XRRFreeOutputInfo(info)
        randr.XRRFreeScreenResources(resources)
        self._x11.XSync(self._connection, c_int(0))
        # The server passes the change on when somebody has it look at its monitors anew.
        self.xrandr("--query")


def edid_of(maker: str, model: str, serial: str) -> bytes:
    """Return the 128 bytes in which a monitor tells its maker (three letters), model and serial number.

    VESA Enhanced EDID Standard, release A, revision 2, sections 3.4 and 3.10.
    """
    letters = 0
    for letter in maker:
        letters = letters << 5 | ord(letter) - ord("A") + 1
    edid = bytearray(128)
    edid[:8] = bytes((0, 255, 255, 255, 255, 255, 255, 0))
    edid[8:10] = letters.to_bytes(2, "big")
    edid[18:20] = bytes((1, 4))
    for start, tag, text in ((54, 0xFC, model), (72, 0xFF, serial)):
        edid[start : start + 5] = bytes((0, 0, 0, tag, 0))
        edid[start + 5 : start + 18] = (text.encode() + b"\n").ljust(13)[:13]
    edid[127] = -sum(edid) % 256
    return bytes(edid)


def until(holds: Callable[[], Any], what: str, limit_s: float = 60.0) -> None:
    """Wait until something holds; fail when it does not."""
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, f"waited {limit_s:.0f} s in vain: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def two_monitor_server(folder: Path) -> Iterator[TwoMonitors]:
    """Run Xorg with two monitors.

    Raises
    ------
    NoServerError
        When it cannot be run here.
    """
    config = folder / "xorg.conf"
    config.write_text(_CONFIG)
    log = folder / "xorg.log"
    command = ["Xorg", "-config", str(config), "-logfile", str(log), "-noreset", "-nolisten", "tcp"]
    with _server([*command, "-novtswitch", "-sharevts"], folder, "xrandr") as display:
        screens = TwoMonitors(display)
        try:
            # The second monitor lists no mode but those added until some client has the server look at its
            # monitors anew after it was plugged in first.
            for name, size in ((OPERATOR, OPERATOR_SIZE), (EYEPIECE, EYEPIECE_SIZE), (EYEPIECE, OTHER_SIZE)):
                screens.xrandr("--addmode", name, _mode(size))
            screens.restore()
            yield screens
        finally:
            screens.close()


@contextlib.contextmanager
def one_monitor_server(folder: Path) -> Iterator[VirtualScreens]:
    """Run Xvfb, whose only monitor is the operator's own.

    Raises
    ------
    NoServerError
        When it cannot be run here.
    """
    command = ["Xvfb", "-screen", "0", "1280x720x24", "-noreset", "-nolisten", "tcp"]
    with _server(command, folder) as display:
        screens = VirtualScreens(display)
        try:
            yield screens
        finally:
            screens.close()


@contextlib.contextmanager
def _server(command: list[str], folder: Path, *others: str) -> Iterator[str]:
    """Run an X server on a free display; yield what DISPLAY is."""
    missing = [program for program in (command[0], *others) if shutil.which(program) is None]
    if missing:
        raise NoServerError(f"{', '.join(missing)} not found")
    reading, writing = os.pipe()
    said = folder / f"{command[0]}.out"
    with said.open("wb") as out:
        server = subprocess.Popen(
            [*command, "-displayfd", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    try:
        # It writes its number once it takes clients; the pipe ends when it fails.
        number = b""
        while not number.endswith(b"\n") and (part := os.read(reading, 16)):
            number += part
        if not number.strip():
            server.wait(_START_LIMIT_S)
            lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
            raise NoServerError(f"{command[0]} ended: {' '.join(lines[-3:])}")
        yield f":{number.decode().strip()}"
    finally:
        os.close(reading)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _library(name: str) -> Any:
    """Return a library of X clients."""
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise NoServerError(str(error)) from error


def _mode(size_px: tuple[int, int]) -> str:
    return f"{size_px[0]}x{size_px[1]}"
