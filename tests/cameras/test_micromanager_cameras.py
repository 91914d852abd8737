"""Cameras and objective turrets through pymmcore-plus, with Micro-Manager's own demo devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from arm_overlay.cameras import CameraError, new_camera
from arm_overlay.cameras.polled import objective_in

LONG_S = 60.0


@pytest.mark.parametrize(
    ("depth", "bits"), [("8", 8), ("10", 10), ("11", 12), ("12", 12), ("14", 14), ("16", 16)]
)
def test_gray_frames_state_the_cameras_bits(
    depth: str, bits: int, demo_configuration: Callable, opened: Callable
) -> None:
    kind = "8bit" if depth == "8" else "16bit"
    camera = opened(f"micromanager:{demo_configuration(PixelType=kind, BitDepth=depth, Exposure='10')}")
    frame = camera.grab(LONG_S)
    assert (frame.bits, frame.bayer, frame.pixels.shape) == (bits, "", (512, 512))
    assert frame.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert 0 < frame.pixels.max() < 2**bits


def test_colors_come_as_red_green_blue(demo_configuration: Callable, opened: Callable) -> None:
    path = demo_configuration(PixelType="32bitRGB", Mode="Color Test Pattern")
    pixels = opened(f"micromanager:{path}").grab(LONG_S).pixels
    assert pixels.shape == (512, 512, 3)
    ramp = 255 * np.arange(1, 513) // 511 & 255
    # Eight bands of 64 lines: blue, green, red, nothing, and then the same without one of the four.
    for band, colors in enumerate(((2,), (1,), (0,), (), (0, 1), (0, 2), (1, 2), (0, 1, 2))):
        expected = np.zeros((512, 3), int)
        expected[:, colors] = ramp[:, None]
        np.testing.assert_array_equal(pixels[64 * band + 32], expected)


def test_wide_colors_keep_their_bits(demo_configuration: Callable, opened: Callable) -> None:
    frame = opened(f"micromanager:{demo_configuration(PixelType='64bitRGB')}").grab(LONG_S)
    assert frame.pixels.shape == (512, 512, 3)
    assert frame.pixels.dtype == np.uint16
    assert frame.bits == 16


def test_a_mosaic_is_stated_by_the_user(opened: Callable) -> None:
    frame = opened("micromanager:demo,bayer=grbg").grab(LONG_S)
    assert frame.bayer == "GRBG"
    assert frame.in_color
    with pytest.raises(CameraError, match="Choose from: RGGB, BGGR, GRBG, GBRG"):
        new_camera("micromanager:demo,bayer=RGBG").open()
    with pytest.raises(CameraError, match="there is no setting 'mosaic'"):
        new_camera("micromanager:demo,mosaic=RGGB").open()


def test_pixels_that_no_frame_has_are_refused(demo_configuration: Callable, opened: Callable) -> None:
    camera = opened(f"micromanager:{demo_configuration(PixelType='32bit')}")
    with pytest.raises(CameraError, match="its pixels are uint32"):
        camera.grab(LONG_S)


def test_a_change_of_the_objective_is_seen_in_the_frames_that_follow(opened: Callable) -> None:
    camera = opened("micromanager:demo")
    frame = camera.grab(LONG_S)
    assert (frame.objective, frame.pixel_size_um) == ("10x", 1.0)
    for label, objective, pixel_size_um in (
        ("Nikon 20X Plan Fluor ELWD", "20x", 0.5),
        ("Nikon 40X Plan Fluor ELWD", "40x", 0.25),
        ("Objective-2", "", None),  # an empty place
        ("Nikon 10X S Fluor", "10x", 1.0),
    ):
        camera._core.setStateLabel("Objective", label)
        frame = camera.grab(LONG_S)
        assert (frame.objective, frame.pixel_size_um) == (objective, pixel_size_um)


def test_a_turret_that_does_not_answer_leaves_the_objective_unknown_until_it_does(
    opened: Callable, frame_where: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = opened("micromanager:demo")
    assert camera.grab(LONG_S).objective == "10x"
    asked = camera._core.getProperty

    def silent(*names: str) -> str:
        raise RuntimeError("the device does not answer")

    camera._core.getProperty = silent
    frame = frame_where(camera, lambda frame: frame.objective == "")
    assert frame.pixel_size_um is None
    camera._core.getProperty = asked
    frame_where(camera, lambda frame: frame.objective == "10x" and frame.pixel_size_um == 1.0)


def test_without_a_turret_the_pixel_size_group_tells_the_objective(
    demo_configuration: Callable, opened: Callable
) -> None:
    # The pixel size of this microscope hangs on another device.
    path = demo_configuration(without=("Objective", "PixelSize"))
    with path.open("a") as file:
        file.write("ConfigPixelSize,Res20x,Emission,State,3\nPixelSize_um,Res20x,0.32\n")
    camera = opened(f"micromanager:{path}")
    assert camera.grab(LONG_S).objective == ""
    camera._core.setState("Emission", 3)
    frame = camera.grab(LONG_S)
    assert (frame.objective, frame.pixel_size_um) == ("20x", 0.32)


@pytest.mark.parametrize(
    ("label", "objective"),
    [
        ("Nikon 10X S Fluor", "10x"),
        ("1-UPLXAPO 4x/0.16", "4x"),
        ("CFI60 60x1.4 Oil", "60x"),
        ("20×", "20x"),
        ("Plan 2.5 X", "2.5x"),
        ("Res40x", "40x"),
        ("Empty", ""),
        ("Objective-2", ""),
        ("10 xylene", ""),
    ],
)
def test_labels_of_objectives_are_read(label: str, objective: str) -> None:
    assert objective_in(label) == objective


def test_gain_is_set_within_its_limits(opened: Callable) -> None:
    camera = opened("micromanager:demo")
    camera.set_gain(3)
    assert camera.gain == 3
    with pytest.raises(CameraError, match="It may be -5 to 8"):
        camera.set_gain(99)
    # It goes on after the refusal, with the frames counted on.
    number = camera.grab(LONG_S).number
    assert camera.grab(LONG_S).number > number


def test_frames_stay_numbered_when_the_camera_has_to_be_stopped_for_a_change(opened: Callable) -> None:
    camera = opened("micromanager:demo")
    before = camera.grab(LONG_S)
    real = type(camera._core).setExposure
    core = camera._core
    # Many cameras take no exposure time while they run.
    refused = []

    def not_while_running(*value: object) -> None:
        if core.isSequenceRunning():
            refused.append(value)
            raise RuntimeError("not while a sequence runs")
        real(core, *value)

    core.setExposure = not_while_running
    camera.set_exposure_ms(4)
    assert len(refused) == 1
    after = camera.grab(LONG_S)
    assert after.exposure_ms == pytest.approx(4)
    assert after.number > before.number
    assert after.time_s > before.time_s


def test_a_camera_that_stops_is_said_and_opens_again(opened: Callable, error_of: Callable) -> None:
    camera = opened("micromanager:demo")
    camera.grab(LONG_S)
    camera._core.stopSequenceAcquisition()
    assert error_of(camera).what == "the camera stopped"
    camera.close()
    camera.open()
    assert camera.grab(LONG_S).pixels.size


def test_a_configuration_that_cannot_be_used_is_refused_by_its_path(tmp_path: Path) -> None:
    def refused(text: str) -> CameraError:
        path = tmp_path / "scope.cfg"
        path.write_text(text)
        with pytest.raises(CameraError) as caught:
            new_camera(f"micromanager:{path}").open()
        assert caught.value.where == str(path)
        return caught.value

    assert "NoSuchLibrary" in refused("Device,Camera,NoSuchLibrary,DCam\n").what
    assert "configures no camera" in refused("# nothing\n").what
    with pytest.raises(CameraError) as caught:
        new_camera(f"micromanager:{tmp_path / 'none.cfg'}").open()
    assert "micromanager:demo" in caught.value.what_to_do
    with pytest.raises(CameraError, match="name a Micro-Manager configuration"):
        new_camera("micromanager:").open()
