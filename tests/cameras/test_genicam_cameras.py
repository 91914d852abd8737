"""GenICam cameras through harvesters, with the producer that the package genicam carries."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arm_overlay.cameras import CameraError, new_camera
from arm_overlay.cameras.genicam import Features, GenICamCamera, PixelFormat, found, readable_format

LONG_S = 60.0
VALUES = np.array([[0x000, 0x123, 0x0FE, 0x3FF], [0x001, 0x200, 0x155, 0x2AA]], np.uint16)


def _bits_lsb_first(values: np.ndarray, bits: int) -> bytes:
    """Pack as the Pixel Format Naming Convention's "p" says: the first pixel in the lowest bits."""
    stream = sum(int(value) << (bits * place) for place, value in enumerate(values.ravel()))
    return stream.to_bytes(values.size * bits // 8, "little")


def _gige_packed(values: np.ndarray, bits: int) -> bytes:
    """Pack two pixels in three bytes as GigE Vision's "Packed": the middle byte holds both remainders."""
    low = bits - 8
    return b"".join(
        bytes([a >> low, (a & (2**low - 1)) | (b & (2**low - 1)) << 4, b >> low])
        for a, b in values.reshape(-1, 2).tolist()
    )


@dataclass
class _Buffer:
    """A buffer as a GenTL producer fills it."""

    raw_buffer: bytes
    pixel_format: int
    width: int = 4
    height: int = 2
    padding_x: int = 0
    padding_y: int = 0
    frame_id: int = 1
    parent: Any = None


def _frame_of(name: str, raw: bytes, padding_x: int = 0) -> Any:
    """Return the frame that the camera makes of a buffer, harvesters' own unpacking in between."""
    from harvesters.core import Component2DImage
    from harvesters.util.pfnc import dict_by_ints

    number = next(number for number, known in dict_by_ints.items() if known == name)
    module = _Buffer(raw, number, padding_x=padding_x)
    component = Component2DImage(buffer=module, node_map=SimpleNamespace())
    buffer = SimpleNamespace(module=module, payload=SimpleNamespace(components=[component]))
    return GenICamCamera("")._frame(buffer, 1.0)


@pytest.mark.parametrize("color", ["Mono", "BayerRG", "BayerGR", "BayerGB", "BayerBG"])
@pytest.mark.parametrize("ending", ["8", "10", "12", "10p", "12p", "12Packed"])
def test_each_mono_and_bayer_format_is_unpacked_to_its_values_and_mosaic(color: str, ending: str) -> None:
    bits = int(ending.rstrip("pPacked"))
    values = VALUES & (2**bits - 1)
    if ending.endswith("p"):
        raw = _bits_lsb_first(values, bits)
    elif ending.endswith("Packed"):
        raw = _gige_packed(values, bits)
    else:
        raw = values.astype(np.uint8 if bits == 8 else "<u2").tobytes()
    frame = _frame_of(color + ending, raw)
    np.testing.assert_array_equal(frame.pixels, values)
    assert frame.bits == bits
    mosaics = {"BayerRG": "RGGB", "BayerGR": "GRBG", "BayerGB": "GBRG", "BayerBG": "BGGR", "Mono": ""}
    assert frame.bayer == mosaics[color]


@pytest.mark.parametrize(
    ("name", "order"), [("RGB8", (0, 1, 2)), ("BGR8", (2, 1, 0)), ("RGBa8", (0, 1, 2, 3))]
)
def test_colors_come_as_red_green_blue(name: str, order: tuple[int, ...]) -> None:
    colors = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4) * 7
    frame = _frame_of(name, np.ascontiguousarray(colors[..., order]).tobytes())
    np.testing.assert_array_equal(frame.pixels, colors[..., :3])


@pytest.mark.parametrize("name", ["Mono8", "BayerRG12"])
def test_bytes_that_fill_up_a_line_are_left_out(name: str) -> None:
    kind = np.dtype("<u2") if name.endswith("12") else np.dtype(np.uint8)
    values = VALUES & 0xFF
    raw = b"".join(line.astype(kind).tobytes() + b"\xee" * 6 for line in values)
    np.testing.assert_array_equal(_frame_of(name, raw, padding_x=6).pixels, values)


def test_a_format_that_is_not_read_gives_way_to_the_best_that_is_offered() -> None:
    def chosen(present: str, *offered: str) -> str | None:
        found = readable_format(present, (present, *offered))
        return found.name if found else None

    assert chosen("BayerGR10p", "BayerGR8") == "BayerGR10p"
    assert chosen("YCbCr422_8", "Mono8", "RGB8", "BayerGR12p", "BayerGR12", "BayerGR8") == "BayerGR8"
    assert chosen("YUV422Packed", "Mono8", "BGR8Packed") == "BGR8Packed"
    assert chosen("BayerRG10Packed", "BayerRG8", "BayerRG12Packed") == "BayerRG8"
    assert chosen("Coord3D_ABC32f", "Confidence8") is None


def test_the_names_of_older_cameras_are_known() -> None:
    assert PixelFormat.named("RGB8Packed") == PixelFormat("RGB8Packed", 8, "", "rgb", packed=False)
    assert PixelFormat.named("Mono12Packed") == PixelFormat("Mono12Packed", 12, "", "", packed=True)
    assert PixelFormat.named("BayerGB16") == PixelFormat("BayerGB16", 16, "GBRG", "", packed=False)


def test_a_camera_is_chosen_by_its_number_its_serial_number_or_its_identifier(
    viky: Path, opened: Callable
) -> None:
    assert opened(f"genicam:{viky}").name.endswith("Viky 0")
    assert opened(f"genicam:{viky}#2").name.endswith("Viky 2")
    assert opened(f"genicam:{viky}#VikyTL_DEV_green").name.endswith("Viky 1")


def test_two_cameras_of_a_producer_are_open_at_once_and_the_list_disturbs_neither(
    only_viky: Path, opened: Callable
) -> None:
    red, green = opened(f"genicam:{only_viky}#0"), opened(f"genicam:{only_viky}#1")
    assert len(found()) == 3
    red.close()
    number = green.grab(LONG_S).number
    assert green.grab(LONG_S).number > number
    red.open()
    assert red.grab(LONG_S).pixels.size


def test_without_a_producer_named_those_of_the_environment_are_used(
    only_viky: Path, opened: Callable
) -> None:
    assert opened("genicam").name.endswith("Viky 0")
    assert opened("genicam:#VikyTL_DEV_blue").name.endswith("Viky 2")


def test_an_unknown_camera_is_refused_with_the_list_of_those_there_are(viky: Path) -> None:
    with pytest.raises(CameraError) as caught:
        new_camera(f"genicam:{viky}#VikyTL_DEV_black").open()
    assert "there is no camera 'VikyTL_DEV_black'" in str(caught.value)
    for color in ("red", "green", "blue"):
        assert f"{viky}#VikyTL_DEV_{color}" in caught.value.what_to_do


def test_a_producer_that_is_missing_or_none_is_refused_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    with pytest.raises(CameraError, match="GENICAM_GENTL64_PATH"):
        new_camera("genicam").open()
    with pytest.raises(CameraError, match=r"none\.cti: there is no such GenTL producer"):
        new_camera(f"genicam:{tmp_path / 'none.cti'}").open()
    broken = tmp_path / "broken.cti"
    broken.write_bytes(b"not a library")
    with pytest.raises(CameraError, match=r"broken\.cti: this GenTL producer cannot be loaded"):
        new_camera(f"genicam:{broken}").open()


def test_features_are_set_by_name_and_refused_with_what_is_allowed(viky: Path, opened: Callable) -> None:
    camera = opened(f"genicam:{viky},PixelFormat=Mono8,AcquisitionFrameRate=80")
    assert camera.frame_interval_s == pytest.approx(1 / 80)
    assert camera.grab(LONG_S).pixels.ndim == 2
    camera.close()
    for settings, allowed in (
        ("PixelFormt=Mono8", "Did you mean PixelFormat"),
        ("PixelFormat=Mono9", "Choose from: RGBa8, Mono8"),
        ("AcquisitionFrameRate=-3", "It may be 1 to 200"),
        ("AcquisitionFrameRate=fast", "It may be 1 to 200"),
    ):
        with pytest.raises(CameraError, match=allowed):
            new_camera(f"genicam:{viky},{settings}").open()


def test_the_frames_show_what_each_camera_sees_in_its_color(viky: Path, opened: Callable) -> None:
    white = (255, 255, 255)
    for name, color in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255))):
        pixels = opened(f"genicam:{viky}#VikyTL_DEV_{name}").grab(LONG_S).pixels
        assert pixels.shape == (400, 400, 3)
        # A white board with a ball on it.
        assert {tuple(map(int, pixel)) for pixel in np.unique(pixels.reshape(-1, 3), axis=0)} == {
            white,
            color,
        }


def test_a_camera_that_is_in_use_is_refused_and_goes_on(viky: Path, opened: Callable) -> None:
    camera = opened(f"genicam:{viky}#0")
    with pytest.raises(CameraError, match="it cannot be opened; another program may use it"):
        new_camera(f"genicam:{viky}#0").open()
    number = camera.grab(LONG_S).number
    assert camera.grab(LONG_S).number > number


def test_controls_that_the_camera_lacks_are_refused_by_name(viky: Path, opened: Callable) -> None:
    camera = opened(f"genicam:{viky}")
    assert camera.gain is None
    for control in (lambda: camera.set_gain(2), lambda: camera.set_white_balance(1.5, 1.2)):
        with pytest.raises(CameraError, match="this camera cannot"):
            control()


class _NodeMap:
    """The features of a color camera, whose one factor belongs to the color that is selected."""

    def __init__(self, colors: tuple[str, ...]) -> None:
        self.factors = dict.fromkeys(colors, 1.7)
        self.automatic = SimpleNamespace(value="Continuous", symbolics=("Off", "Continuous"))
        self.selector = SimpleNamespace(value=colors[0], symbolics=colors)
        self.ratio = _Ratio(self)
        self.features = {
            "BalanceWhiteAuto": self.automatic,
            "BalanceRatioSelector": self.selector,
            "BalanceRatioAbs": self.ratio,
        }

    def get_node(self, name: str) -> Any:
        return self.features[name]


class _Ratio:
    def __init__(self, camera: _NodeMap) -> None:
        self._camera = camera

    @property
    def value(self) -> float:
        return self._camera.factors[self._camera.selector.value]

    @value.setter
    def value(self, factor: float) -> None:
        assert self._camera.automatic.value == "Off", "the camera would overrule it"
        self._camera.factors[self._camera.selector.value] = factor


@pytest.mark.parametrize("colors", [("Red", "Green", "Blue"), ("Red", "Blue")])
def test_white_balance_is_set_beside_green(colors: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    camera, nodes = GenICamCamera(""), _NodeMap(colors)
    monkeypatch.setattr(GenICamCamera, "_features", Features(nodes, "a color camera"))
    camera.set_white_balance(red=1.5, blue=1.25)
    assert nodes.factors == {color: {"Red": 1.5, "Green": 1.0, "Blue": 1.25}[color] for color in colors}


def test_a_camera_lost_under_way_is_said_and_opens_again(
    viky: Path, opened: Callable, error_of: Callable
) -> None:
    from genicam.gentl import IoException

    camera = opened(f"genicam:{viky}")
    camera.grab(LONG_S)

    def unplugged(**_: Any) -> None:
        raise IoException("the device does not answer")

    camera._acquirer.try_fetch = unplugged
    assert error_of(camera).what == "the camera was lost (the device does not answer)"
    camera.close()
    camera.open()
    assert camera.grab(LONG_S).number == 0


def test_interrupting_the_program_works_as_before(viky: Path, opened: Callable) -> None:
    before = signal.getsignal(signal.SIGINT)
    opened(f"genicam:{viky}")
    assert signal.getsignal(signal.SIGINT) is before
