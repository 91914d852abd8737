"""Cameras without hardware: the emulators, producers and demo devices that the camera libraries carry."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from arm_overlay.cameras import Camera, CameraError, new_camera
from arm_overlay.frames import Frame

# Far longer than anything takes on a busy computer: reached only when it never happens.
LONG_S = 60.0


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Fail a test after which a camera still has a thread."""
    yield
    deadline_s = time.monotonic() + LONG_S
    while left := [t.name for t in threading.enumerate() if t.name in ("camera", "turret")]:
        assert time.monotonic() < deadline_s, (
            f"threads of a camera were left behind: {left}. Close the camera."
        )
        time.sleep(0.01)


@pytest.fixture
def opened() -> Iterator[Callable[..., Camera]]:
    """Open cameras by their specification; they are closed after the test."""
    cameras: list[Camera] = []

    def open_camera(spec: str) -> Camera:
        camera = new_camera(spec)
        cameras.append(camera)
        camera.open()
        return camera

    yield open_camera
    for camera in cameras:
        camera.close()


@pytest.fixture
def frame_where() -> Callable[..., Frame]:
    """Fetch frames until one is as wanted."""

    def fetch(camera: Camera, wanted: Callable[[Frame], bool]) -> Frame:
        deadline_s = time.monotonic() + LONG_S
        while not wanted(frame := camera.grab(LONG_S)):
            assert time.monotonic() < deadline_s, f"no such frame came; the last was {frame}"
        return frame

    return fetch


@pytest.fixture
def error_of() -> Callable[..., CameraError]:
    """Fetch frames until the camera raises; frames that came before may still be there."""

    def fetch(camera: Camera, timeout_s: float = LONG_S) -> CameraError:
        deadline_s = time.monotonic() + LONG_S
        while True:
            assert time.monotonic() < deadline_s, "the camera goes on"
            try:
                camera.grab(timeout_s)
            except CameraError as error:
                return error

    return fetch


@pytest.fixture
def two_baslers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pylon emulate two cameras; it looks at the environment each time it is asked for cameras."""
    monkeypatch.setenv("PYLON_CAMEMU", "2")


@pytest.fixture
def viky() -> Path:
    """The GenTL producer that comes with the package genicam: three cameras that play ball."""
    package = importlib.util.find_spec("genicam")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).with_name("viky.cti")


@pytest.fixture
def only_viky(viky: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have viky found as the camera maker's driver."""
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(viky.parent))
    return viky


@pytest.fixture
def demo_configuration(tmp_path: Path) -> Callable[..., Path]:
    """Write Micro-Manager's demo configuration with other properties of its camera."""
    from mm_test_adapters import device_adapter_path

    path_before = os.environ["PATH"]
    text = (Path(device_adapter_path()) / "MMConfig_demo.cfg").read_text()
    os.environ["PATH"] = path_before  # the function above adds to it

    def write(without: tuple[str, ...] = (), **properties: str) -> Path:
        keys = [f"ConfigGroup,System,Startup,Camera,{name}," for name in properties]
        lines = [line for line in text.splitlines() if not any(part in line for part in (*without, *keys))]
        lines += [key + value for key, value in zip(keys, properties.values(), strict=True)]
        path = tmp_path / "scope.cfg"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def movie(tmp_path: Path) -> Callable[..., Path]:
    """Write a movie without loss, 25 frames a second; frame n is red 200, green 100, blue n."""
    import cv2

    def write(frames: int = 20, name: str = "movie.avi") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25, (64, 48))
        assert writer.isOpened()
        for number in range(frames):
            writer.write(np.full((48, 64, 3), (number, 100, 200), np.uint8))  # blue, green, red
        writer.release()
        return path

    return write
