"""Basler cameras through pypylon, with pylon's own camera emulator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

from arm_overlay.cameras import CameraError, new_camera

LONG_S = 60.0
SMALL = "Width=64,Height=48"
RED, GREEN, BLUE = 200, 100, 20

pytestmark = pytest.mark.usefixtures("two_baslers")


@pytest.fixture
def orange(tmp_path: Path) -> Path:
    """An image that the emulated camera sees: each color has its own value."""
    path = tmp_path / "orange.png"
    imageio.v3.imwrite(path, np.full((48, 64, 3), (RED, GREEN, BLUE), np.uint8))
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
def test_the_mosaic_is_named_as_the_camera_lays_it(
    pattern: str, bits: int, orange: Path, opened: Callable
) -> None:
    camera = opened(
        f"basler:PixelFormat=Bayer{pattern[:2]}{bits},TestImageSelector=Off,ImageFilename={orange},"
        "ImageFileMode=On"
    )
    frame = camera.grab(LONG_S)
    assert (frame.bayer, frame.bits) == (pattern, bits)
    colors = {"R": RED, "G": GREEN, "B": BLUE}
    cell = np.array([colors[color] for color in pattern]).reshape(2, 2) << (bits - 8)
    np.testing.assert_array_equal(frame.pixels, np.tile(cell, (24, 32)))


@pytest.mark.parametrize("name", ["RGB8Packed", "BGR8Packed", "BGRA8Packed", "RGB16Packed"])
def test_colors_come_as_red_green_blue(name: str, orange: Path, opened: Callable) -> None:
    camera = opened(
        f"basler:PixelFormat={name},TestImageSelector=Off,ImageFilename={orange},ImageFileMode=On"
    )
    frame = camera.grab(LONG_S)
    bits = 16 if "16" in name else 8
    assert (frame.bits, frame.bayer, frame.pixels.shape) == (bits, "", (48, 64, 3))
    np.testing.assert_array_equal(
        frame.pixels, np.full((48, 64, 3), (RED, GREEN, BLUE), np.uint16) << (bits - 8)
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_gray_values_are_the_test_images(bits: int, opened: Callable) -> None:
    camera = opened(f"basler:{SMALL},PixelFormat=Mono{bits},TestImageSelector=Testimage1")
    ramp = np.add.outer(np.arange(48), np.arange(64)) << (bits - 8)
    np.testing.assert_array_equal(camera.grab(LONG_S).pixels, ramp)


def test_a_camera_is_chosen_by_its_serial_number(opened: Callable) -> None:
    assert opened("basler:0815-0001").name == "Basler Emulation 0815-0001"
    assert opened("basler").name == "Basler Emulation 0815-0000"


def test_an_unknown_camera_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(CameraError) as caught:
        new_camera("basler:4711").open()
    assert str(caught.value) == (
        "basler:4711: there is no Basler camera 4711. There are: "
        "basler:0815-0000 (Basler Emulation 0815-0000); basler:0815-0001 (Basler Emulation 0815-0001)."
    )


def test_without_any_camera_the_sentence_says_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLON_CAMEMU", "0")
    with pytest.raises(CameraError, match=r"there is no Basler camera\. Check its cable"):
        new_camera("basler").open()


def test_features_are_refused_with_what_is_allowed() -> None:
    for settings, allowed in (
        ("PixelFormt=Mono8", "Did you mean PixelFormat"),
        ("PixelFormat=Mono9", "Choose from: Mono8, Mono10"),
        ("Width=100000", "It may be 1 to 4096"),
        ("Width=wide", "It may be 1 to 4096"),
    ):
        with pytest.raises(CameraError, match=allowed):
            new_camera(f"basler:{settings}").open()


def test_exposure_and_gain_are_set_within_their_limits(opened: Callable) -> None:
    camera = opened(f"basler:{SMALL},ExposureAuto=Continuous,GainAuto=Continuous")
    assert camera.grab(LONG_S).exposure_ms is None  # the camera chooses it anew for each frame
    camera.set_exposure_ms(2.5)
    camera.set_gain(6)
    assert camera.exposure_ms == pytest.approx(2.5)
    assert camera.gain == pytest.approx(6, abs=0.1)
    assert camera._features.value("ExposureAuto") == "Off"
    assert camera._features.value("GainAuto") == "Off"
    assert camera.frame_interval_s is not None
    with pytest.raises(CameraError, match="Gain cannot be set to 1000"):
        camera.set_gain(1000)


def test_a_camera_that_waits_for_a_trigger_says_that_no_frame_came(opened: Callable) -> None:
    camera = opened("basler:TriggerMode=On")
    with pytest.raises(CameraError, match=r"no frame came within 0\.2 s.*trigger"):
        camera.grab(0.2)


def test_closing_ends_a_grab_that_waits_for_a_trigger(opened: Callable) -> None:
    camera = opened("basler:TriggerMode=On")
    errors: list[Exception] = []

    def fetch() -> None:
        try:
            camera.grab(10 * LONG_S)
        except CameraError as error:
            errors.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    camera.close()
    thread.join(LONG_S)
    assert not thread.is_alive()
    assert "closed" in str(errors[0])


def test_a_trigger_left_on_by_another_program_is_switched_off(opened: Callable) -> None:
    camera = opened(f"basler:{SMALL}")
    features = camera._features
    camera._camera.StopGrabbing()
    triggers = features.choices("TriggerSelector")
    for trigger in triggers:
        features.set("TriggerSelector", trigger)
        features.set("TriggerMode", "On")
    camera._set_up({})
    for trigger in triggers:
        features.set("TriggerSelector", trigger)
        assert features.value("TriggerMode") == "Off"


def test_frames_lost_on_the_way_are_left_out_and_counted(opened: Callable, frame_where: Callable) -> None:
    camera = opened(f"basler:{SMALL},AcquisitionFrameRate=50")
    before = camera.grab(LONG_S)
    nodes = camera._camera.GetNodeMap()
    nodes.GetNode("ForceFailedBufferCount").Value = 5
    nodes.GetNode("ForceFailedBuffer").Execute()
    remaining, last = nodes.GetNode("ForcedFailedBuffersRemaining"), before
    gap = 0
    while remaining.Value or not gap:
        frame = camera.grab(LONG_S)
        gap = max(gap, frame.number - last.number - 1)
        last = frame
        assert frame.pixels.shape == (48, 64)
    assert gap >= 5


def test_an_unplugged_camera_is_said_and_opens_again_when_it_is_back(
    opened: Callable, error_of: Callable
) -> None:
    camera = opened(f"basler:0815-0001,{SMALL}")
    camera.grab(LONG_S)
    # The emulator's way to have pylon hear of a removed device.
    camera._camera.GetNodeMap().GetNode("FirePnPCallback").Execute()
    assert str(error_of(camera)).startswith("Basler Emulation 0815-0001: the camera was lost (unplugged")
    camera.close()
    camera.open()
    assert camera.grab(LONG_S).pixels.shape == (48, 64)


def test_a_frame_size_changed_under_way_is_the_frames_own(opened: Callable, frame_where: Callable) -> None:
    camera = opened(f"basler:{SMALL}")
    assert camera.grab(LONG_S).size_px == (64, 48)
    device = camera._camera
    with camera._device_lock:
        device.StopGrabbing()
        device.GetNodeMap().GetNode("Width").Value = 80
        device.StartGrabbing(1)
    frame = frame_where(camera, lambda frame: frame.size_px == (80, 48))
    assert frame.pixels.shape == (48, 80)
