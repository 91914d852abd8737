"""What each kind of camera does alike, with the real library of each."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from arm_overlay.cameras import Camera, CameraError, list_cameras, new_camera
from arm_overlay.frames import BAYER_PATTERNS
from lincei.errors import LinceiError

LONG_S = 60.0
KINDS = ("basler", "genicam", "micromanager", "movie", "images")


@dataclass(frozen=True)
class Sample:
    """A camera to try the contract on."""

    spec: str
    unknown: str
    sets_exposure: bool


@pytest.fixture(params=KINDS)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    """A camera of each kind, and one of that kind that there is not."""
    if request.param == "basler":
        request.getfixturevalue("two_baslers")
        return Sample("basler:0815-0001,Width=64,Height=48", "basler:4711", sets_exposure=True)
    if request.param == "genicam":
        viky = request.getfixturevalue("viky")
        return Sample(
            f"genicam:{viky}#1,AcquisitionFrameRate=50", f"genicam:{viky}#none", sets_exposure=False
        )
    if request.param == "micromanager":
        return Sample("micromanager:demo", f"micromanager:{tmp_path / 'none.cfg'}", sets_exposure=True)
    if request.param == "movie":
        movie = request.getfixturevalue("movie")()
        return Sample(f"file:{movie},loop", f"file:{tmp_path / 'none.avi'}", sets_exposure=False)
    folder = tmp_path / "frames"
    folder.mkdir()
    import imageio.v3

    for number in range(4):
        imageio.v3.imwrite(folder / f"{number}.png", np.full((48, 64), number, np.uint8))
    return Sample(f"file:{folder},fps=50,loop", f"file:{tmp_path / 'none' / '*.tif'}", sets_exposure=False)


@pytest.fixture
def camera(sample: Sample) -> Camera:
    return new_camera(sample.spec)


def test_each_frame_is_newer_than_the_last_and_within_its_bits(camera: Camera) -> None:
    began_s = time.monotonic()
    with camera:
        frames = [camera.grab(LONG_S) for _ in range(5)]
        ended_s = time.monotonic()
    numbers, times_s = [frame.number for frame in frames], [frame.time_s for frame in frames]
    assert all(later > earlier for earlier, later in itertools.pairwise(numbers))
    assert all(later > earlier for earlier, later in itertools.pairwise(times_s))
    assert began_s - 1 < times_s[0]
    assert times_s[-1] <= ended_s
    for frame in frames:
        assert frame.pixels.dtype == (np.uint8 if frame.bits == 8 else np.uint16)
        assert frame.pixels.max() < 2**frame.bits
        assert frame.pixels.ndim == 2 or frame.pixels.shape[2:] == (3,)
        assert not frame.bayer or (frame.bayer in BAYER_PATTERNS and frame.pixels.ndim == 2)
        assert frame.size_px == (frame.pixels.shape[1], frame.pixels.shape[0])


def test_the_frame_after_a_pause_is_new_and_the_missed_ones_are_counted(camera: Camera) -> None:
    with camera:
        before = camera.grab(LONG_S)
        time.sleep(0.5)
        after = camera.grab(LONG_S)
    assert after.number - before.number > 2
    # The oldest that waits would have been taken at most two frame intervals after the last.
    assert after.time_s - before.time_s > 0.2


def test_a_frame_does_not_change_when_later_ones_come(camera: Camera) -> None:
    with camera:
        first = camera.grab(LONG_S)
        copy = first.pixels.copy()
        for _ in range(8):
            camera.grab(LONG_S)
        np.testing.assert_array_equal(first.pixels, copy)


def test_a_closed_camera_gives_no_frame_and_opens_again(camera: Camera) -> None:
    with pytest.raises(CameraError, match="closed"):
        camera.grab(0.1)
    for _ in range(2):
        camera.open()
        camera.open()  # does nothing where it is open
        size_px = camera.grab(LONG_S).size_px
        assert min(size_px) > 0
        camera.close()
        camera.close()
        with pytest.raises(CameraError, match="closed"):
            camera.grab(0.1)


def test_closing_from_another_thread_ends_a_waiting_grab(camera: Camera) -> None:
    camera.open()
    errors: list[Exception] = []
    fetched = threading.Event()

    def fetch() -> None:
        try:
            while True:
                camera.grab(LONG_S)
                fetched.set()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    try:
        assert fetched.wait(LONG_S)
    finally:
        camera.close()
        thread.join(LONG_S)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert isinstance(errors[0], CameraError)


def test_a_camera_that_is_not_there_is_refused_with_a_sentence(sample: Sample) -> None:
    unknown = new_camera(sample.unknown)
    with pytest.raises(CameraError) as caught:
        unknown.open()
    assert caught.value.where
    assert str(caught.value).endswith(".")
    unknown.close()


def test_exposure_is_set_and_in_the_frames_where_the_camera_has_it(
    sample: Sample, camera: Camera, frame_where: Callable
) -> None:
    with camera:
        if not sample.sets_exposure:
            assert camera.exposure_ms is None
            with pytest.raises(CameraError, match="cannot set its exposure time"):
                camera.set_exposure_ms(5)
            return
        camera.set_exposure_ms(5)
        assert camera.exposure_ms == pytest.approx(5)
        frame_where(camera, lambda frame: frame.exposure_ms == pytest.approx(5))
        camera.set_exposure_ms(20)
        assert camera.exposure_ms == pytest.approx(20)
        frame_where(camera, lambda frame: frame.exposure_ms == pytest.approx(20))


def test_a_program_that_leaves_its_camera_open_ends_in_order(sample: Sample) -> None:
    program = (
        "import sys\n"
        "from arm_overlay.cameras import new_camera\n"
        "camera = new_camera(sys.argv[1])\n"
        "camera.open()\n"
        "camera.grab(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, sample.spec], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("two_baslers", "only_viky")
def test_the_cameras_there_are_are_listed_and_open_by_what_the_list_says() -> None:
    cameras, problems = list_cameras()
    specs = [camera.spec for camera in cameras]
    listed = [spec for spec in specs if spec.startswith(("basler:", "genicam:", "micromanager:"))]
    assert len([spec for spec in specs if spec.startswith("basler:")]) == 2
    assert len([spec for spec in specs if spec.startswith("genicam:")]) == 3
    assert "micromanager:demo" in specs
    assert not any(kind in problem for problem in problems for kind in ("basler", "genicam", "micromanager"))
    for spec in listed:
        with new_camera(spec) as camera:
            assert camera.grab(LONG_S).pixels.size


def test_a_driver_that_fails_does_not_hide_the_cameras_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> None:
        raise RuntimeError("transport layer not available")

    monkeypatch.setattr("arm_overlay.cameras.basler.found", found)
    cameras, problems = list_cameras()
    assert "simulated" in [camera.spec for camera in cameras]
    assert "basler: its driver failed (transport layer not available)" in problems


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        ("basler", "pypylon"),
        ("genicam:maker.cti", "harvesters"),
        ("micromanager:demo", "pymmcore_plus"),
        ("usb:0", "cv2"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    spec: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LinceiError, match=r"pip install 'lincei\[arm\]'"):
        new_camera(spec).open()


def test_no_camera_library_is_loaded_before_a_camera_is_opened() -> None:
    program = (
        "import sys\n"
        "from arm_overlay.cameras import new_camera\n"
        "for spec in ('basler', 'genicam', 'micromanager:demo', 'usb:0', 'rtsp://a/b', 'file:a'):\n"
        "    new_camera(spec)\n"
        "heavy = ('cv2', 'pypylon', 'genicam', 'harvesters', 'pymmcore', 'pymmcore_plus', 'PySide6')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
