"""USB and network cameras, movies and folders of images, through OpenCV and lincei's image reading."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import imageio.v3
import numpy as np
import pytest
import tifffile
from rtsp_server import RtspCamera

from arm_overlay.cameras import Camera, CameraError, new_camera
from arm_overlay.cameras.video import found
from lincei.image import Image, save_image

LONG_S = 60.0


def _grabbed(camera: Camera, error_of: Callable[[Camera], CameraError]) -> tuple[list[Any], CameraError]:
    """Return the frames of a camera to its end, and how it ended."""
    frames = []
    while True:
        try:
            frames.append(camera.grab(LONG_S))
        except CameraError as error:
            return frames, error


# Movies.


def test_a_movie_plays_in_its_colors_at_its_own_rate_and_ends_with_a_sentence(
    movie: Callable, opened: Callable, error_of: Callable
) -> None:
    path = movie(frames=12)
    camera = opened(f"file:{path}")
    assert camera.frame_interval_s == pytest.approx(0.04)
    frames, error = _grabbed(camera, error_of)
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, np.full((48, 64, 3), (200, 100, frame.number), np.uint8))
    assert frames[-1].number == 11
    # Never ahead of its time; a busy computer may be late.
    first = frames[0]
    for frame in frames:
        assert frame.time_s - first.time_s > (frame.number - first.number) * 0.04 - 0.02
    assert str(error) == (
        f"{path}: the movie has ended after 12 frames. Add ,loop to its name to play it again and again."
    )


def test_a_movie_loops_when_asked_to(movie: Callable, opened: Callable, frame_where: Callable) -> None:
    camera = opened(f"file:{movie(frames=5)},loop,fps=100")
    frame = frame_where(camera, lambda frame: frame.number >= 13)
    assert frame.pixels[0, 0, 2] == frame.number % 5


def test_a_movie_that_is_late_leaves_frames_out_and_counts_them(
    movie: Callable, opened: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arm_overlay.cameras import video

    convert = video._rgb

    def slowly(pixels: Any) -> Any:
        time.sleep(0.05)  # five times as long as a frame lasts
        return convert(pixels)

    monkeypatch.setattr(video, "_rgb", slowly)
    frames, error = _grabbed(opened(f"file:{movie(frames=60)},fps=100"), error_of)
    assert len(frames) < 50
    for frame in frames:
        assert frame.pixels[0, 0, 2] == frame.number
    assert "ended after 60 frames" in error.what


@pytest.mark.parametrize("kept", [0, 40, 0.5])
def test_a_movie_that_cannot_be_decoded_is_refused_by_its_path(
    kept: float, movie: Callable, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = movie().read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(CameraError, match=r"cut\.avi: this movie cannot be read.*Copy it again"):
        new_camera(f"file:{cut}").open()


def test_a_movie_with_fewer_frames_than_it_states_says_so(
    movie: Callable, opened: Callable, error_of: Callable
) -> None:
    path = movie(frames=12)
    raw = bytearray(path.read_bytes())
    # The numbers of frames in the headers of the file and of the stream.
    for header, place in ((b"avih", 24), (b"strh", 40)):
        start = raw.index(header) + place
        assert int.from_bytes(raw[start : start + 4], "little") == 12
        raw[start : start + 4] = (20).to_bytes(4, "little")
    path.write_bytes(raw)
    error = error_of(opened(f"file:{path},fps=100"))
    assert error.what == "the movie has ended after 12 frames. 20 frames are stated: it may be cut short."


def test_the_name_of_a_movie_may_look_like_settings(
    movie: Callable, tmp_path: Path, opened: Callable
) -> None:
    odd = movie().rename(tmp_path / "day 1, slide=3.avi")
    assert opened(f"file:{odd}").grab(LONG_S).pixels.shape == (48, 64, 3)
    assert opened(f"file:{odd},loop").grab(LONG_S).pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("bits=12", "Choose from: loop, fps"),
        ("fps=fast", "It is a number above 0"),
        ("fps=0", "It is a number above 0"),
        ("fps=nan", "It is a number above 0"),
    ],
)
def test_wrong_settings_of_a_movie_are_refused(settings: str, said: str, movie: Callable) -> None:
    with pytest.raises(CameraError, match=said):
        new_camera(f"file:{movie()},{settings}").open()


def test_a_file_that_is_not_there_or_not_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"none\.avi: there is no such file"):
        new_camera(f"file:{tmp_path / 'none.avi'}").open()
    with pytest.raises(CameraError, match="name a movie"):
        new_camera("file:").open()


# Images.


def test_raw_frames_of_a_folder_keep_mosaic_bits_and_pixel_size(tmp_path: Path, opened: Callable) -> None:
    rng = np.random.default_rng(1)
    planes = rng.integers(0, 4096, (3, 20, 30), np.uint16)
    for number, plane in enumerate(planes):
        image = Image.from_array(plane, pixel_size_um=0.44)
        save_image(image, tmp_path / f"frame_{number}.ome.tif")
    camera = opened(f"file:{tmp_path},fps=5,bayer=grbg,bits=12")
    assert camera.frame_interval_s == pytest.approx(0.2)
    for _ in range(3):
        frame = camera.grab(LONG_S)
        np.testing.assert_array_equal(frame.pixels, planes[frame.number])
        assert (frame.bayer, frame.bits, frame.pixel_size_um) == ("GRBG", 12, pytest.approx(0.44))
        if frame.number == 2:
            return


def test_the_time_points_of_an_image_are_frames_at_its_own_rate(
    tmp_path: Path, opened: Callable, error_of: Callable
) -> None:
    stack = np.arange(4, dtype=np.uint8)[:, None, None, None] + np.zeros((4, 10, 12, 3), np.uint8)
    path = tmp_path / "time.ome.tif"
    save_image(Image.from_array(stack, "TYXS", time_step_s=0.1), path)
    camera = opened(f"file:{path}")
    assert camera.frame_interval_s == pytest.approx(0.1)
    frames, error = _grabbed(camera, error_of)
    assert frames[-1].number == 3
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, stack[frame.number])
    assert "the images have ended after 4 frames" in error.what


def test_frames_of_another_size_are_passed_on(
    tmp_path: Path, opened: Callable, frame_where: Callable
) -> None:
    for number, size in enumerate(((10, 20), (12, 16), (10, 20))):
        imageio.v3.imwrite(tmp_path / f"{number}.png", np.zeros(size, np.uint8))
    camera = opened(f"file:{tmp_path / '{name}.png'},fps=10,loop")
    for _ in range(2):
        frame_where(camera, lambda frame: frame.size_px == (20, 10))
        assert frame_where(camera, lambda frame: frame.size_px == (16, 12)).number % 3 == 1


def test_a_damaged_image_ends_the_frames_with_its_name(
    tmp_path: Path, opened: Callable, error_of: Callable
) -> None:
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((16, 16), np.uint8))
    tifffile.imwrite(tmp_path / "1.tif", np.zeros((160, 160), np.uint8))
    with (tmp_path / "1.tif").open("r+b") as file:
        file.truncate(900)
    frames, error = _grabbed(opened(f"file:{tmp_path}"), error_of)
    assert len(frames) == 1
    assert str(tmp_path / "1.tif") in str(error)


@pytest.mark.parametrize(
    ("array", "axes", "settings", "said"),
    [
        (np.zeros((8, 8), np.float32), "YX", "", "its pixels are float32"),
        (np.zeros((3, 8, 8), np.uint8), "ZYX", "", "it has 1 channels and 3 planes"),
        (np.zeros((2, 8, 8), np.uint8), "CYX", "", "it has 2 channels and 1 planes"),
        (np.zeros((8, 8, 3), np.uint8), "YXS", ",bayer=RGGB", "it is an RGB image"),
        (np.zeros((8, 8), np.uint8), "YX", ",bayer=XXXX", "Choose from: RGGB"),
        (np.zeros((8, 8), np.uint16), "YX", ",bits=11", "Choose from: 8, 10, 12, 14, 16"),
        (np.zeros((8, 8), np.uint8), "YX", ",speed=2", "there is no setting 'speed'"),
    ],
)
def test_images_that_are_no_frames_are_refused_at_the_start(
    array: Any, axes: str, settings: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.ome.tif"
    save_image(Image.from_array(array, axes), path)
    with pytest.raises(CameraError, match=said):
        new_camera(f"file:{path}{settings}").open()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no image"):
        new_camera(f"file:{tmp_path}").open()


def test_real_stained_tissue_plays_as_frames(real_data: Path, opened: Callable, error_of: Callable) -> None:
    folder = real_data / "he_oral_20x" / "images"
    frames, error = _grabbed(opened(f"file:{folder},fps=20"), error_of)
    assert f"ended after {len(list(folder.iterdir()))} frames" in error.what
    for frame in frames:
        assert frame.pixels.shape == (640, 640, 3)
        red, green, blue = frame.pixels.reshape(-1, 3).mean(axis=0)
        assert red > green  # hematoxylin and eosin take up green most
        assert blue > green


# Network cameras.


def _numbered(number: int) -> np.ndarray:
    return np.full((48, 64, 3), (200, 100, 10 * (number % 20)), np.uint8)


def test_a_network_camera_is_followed_without_a_queue(opened: Callable) -> None:
    with RtspCamera(_numbered) as server:
        camera = opened(server.address)
        first = camera.grab(LONG_S)
        np.testing.assert_allclose(first.pixels[..., :2], np.full((48, 64, 2), (200, 100)), atol=6)
        time.sleep(0.5)
        frames = [camera.grab(LONG_S) for _ in range(5)]
        assert frames[0].number > first.number + 2
        assert all(b.number > a.number and b.time_s > a.time_s for a, b in itertools.pairwise(frames))
        camera.close()


def test_a_network_camera_that_is_cut_off_is_said_and_opens_again(
    opened: Callable, error_of: Callable
) -> None:
    with RtspCamera(_numbered) as server:
        camera = opened(server.address)
        camera.grab(LONG_S)
        server.close()
        assert error_of(camera).what == "the camera sends no more frames"
        camera.close()
    with pytest.raises(CameraError, match="does not answer"):
        camera.open()


def test_a_network_camera_that_falls_silent_is_said_within_the_time_asked_for(
    opened: Callable, error_of: Callable
) -> None:
    with RtspCamera(_numbered) as server:
        camera = opened(server.address)
        camera.grab(LONG_S)
        server.silent.set()
        assert error_of(camera, 0.3).what == "no frame came within 0.3 s"
        camera.close()


def test_a_password_is_not_shown() -> None:
    camera = new_camera("rtsp://observer:secret@127.0.0.1:9/microscope")
    with pytest.raises(CameraError, match="does not answer") as caught:
        camera.open()
    assert "secret" not in str(caught.value)
    assert "rtsp://127.0.0.1:9/microscope" in str(caught.value)


# USB cameras: OpenCV's side is played, since a computer need not have one.


class _UsbCapture:
    """What OpenCV gives for a USB camera: 640x480 unless asked, sizes up to 1920x1080."""

    unplugged: ClassVar[threading.Event] = threading.Event()
    released: ClassVar[int] = 0

    def __init__(self, number: int) -> None:
        import cv2

        self._open = number == 0
        self._properties: dict[int, float] = {
            cv2.CAP_PROP_FRAME_WIDTH: 640,
            cv2.CAP_PROP_FRAME_HEIGHT: 480,
            cv2.CAP_PROP_FPS: 30,
        }

    def isOpened(self) -> bool:  # noqa: N802
        return self._open

    def get(self, key: int) -> float:
        return self._properties.get(key, 0)

    def set(self, key: int, value: float) -> bool:
        if value > 1920:
            return False
        self._properties[key] = value
        return True

    def read(self) -> tuple[bool, Any]:
        import cv2

        time.sleep(0.01)
        if self.unplugged.is_set():
            return False, None
        width, height = (int(self.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        return True, np.full((height, width, 3), (20, 100, 200), np.uint8)

    def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def one_usb_camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_UsbCapture]]:
    import cv2

    monkeypatch.setattr(cv2, "VideoCapture", _UsbCapture)
    _UsbCapture.released = 0
    yield _UsbCapture
    _UsbCapture.unplugged.clear()


def test_a_usb_camera_gives_red_green_blue_at_the_size_asked_for(
    one_usb_camera: type[_UsbCapture], opened: Callable
) -> None:
    camera = opened("usb:0,size=1280x720,fps=60")
    frame = camera.grab(LONG_S)
    np.testing.assert_array_equal(frame.pixels, np.full((720, 1280, 3), (200, 100, 20), np.uint8))
    assert camera.frame_interval_s == pytest.approx(1 / 60)
    camera.close()
    assert one_usb_camera.released == 1


@pytest.mark.usefixtures("one_usb_camera")
def test_a_size_that_the_usb_camera_has_not_is_refused_with_the_one_it_takes() -> None:
    with pytest.raises(CameraError, match=r"The camera takes size=640x1080 in its place"):
        new_camera("usb:0,size=3840x1080").open()
    with pytest.raises(CameraError, match="Write it as 1920x1200"):
        new_camera("usb:0,size=large").open()


def test_an_unplugged_usb_camera_is_said_and_let_go(
    one_usb_camera: type[_UsbCapture], opened: Callable, error_of: Callable
) -> None:
    camera = opened("usb:0")
    camera.grab(LONG_S)
    one_usb_camera.unplugged.set()
    assert error_of(camera).what == "the camera sends no more frames"
    camera.close()
    assert one_usb_camera.released == 1
    one_usb_camera.unplugged.clear()
    camera.open()
    assert camera.grab(LONG_S).pixels.size


@pytest.mark.usefixtures("one_usb_camera")
def test_an_unknown_usb_camera_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert [camera.spec for camera in found()] == ["usb:0"]
    with pytest.raises(CameraError, match=r"there is no USB camera 3\. There are: usb:0"):
        new_camera("usb:3").open()
    with pytest.raises(CameraError, match="named by its number, such as usb:0, not 'left'"):
        new_camera("usb:left").open()
