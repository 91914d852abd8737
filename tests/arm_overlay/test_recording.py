"""Snapshots, recorded sessions, and their replay."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from loop_stand_ins import (
    OWN_THRESHOLD,
    PATIENCE_S,
    SQUARE,
    StandInCamera,
    StandInLive,
    stand_in_frame,
    wait_until,
)
from numpy.typing import NDArray

from arm_overlay import recording
from arm_overlay.annotations import read_geojson
from arm_overlay.cameras import CameraEndedError, CameraError, new_camera
from arm_overlay.cameras.replay import ReplayCamera, recorded_empty_field
from arm_overlay.frames import Frame
from arm_overlay.loop import Loop
from arm_overlay.overlay import Overlay, Region
from arm_overlay.recording import (
    EMPTY_FIELD_FILE,
    LOG_FILE,
    Records,
    session_folder,
    write_snapshot,
)
from lincei.errors import LinceiError
from lincei.image import open_image

STEP_S = 0.05


def colors_of(frame: Frame) -> NDArray[np.uint8]:
    """Return a frame in color, undeveloped."""
    pixels = frame.pixels if frame.pixels.ndim == 3 else np.stack([frame.pixels] * 3, axis=-1)
    return np.ascontiguousarray(pixels, np.uint8)


def overlay_of(frame: Frame, **changes: Any) -> Overlay:
    fields: dict[str, Any] = {
        "regions": (Region(SQUARE, (SQUARE[::-1] / 2 + 10,), 1200.0, 50.0, 0.75),),
        "heat_map": np.linspace(0, 255, 96).reshape(8, 12).astype(np.uint8),
        "measures": {"percent_tumor": 12.5},
        "objective": "20x",
        "model": "tumor-test",
        "pixel_size_um": 0.5,
        "threshold": 0.45,
        "timings_ms": {"inference": 3.25},
    }
    return Overlay(frame.number, frame.time_s, frame.size_px, **{**fields, **changes})


def record(
    folder: Path,
    frames: list[Frame],
    *,
    record_format: str = "ome-zarr",
    save_empty_field: Callable[[Path], object] | None = None,
) -> Path:
    """Record frames and return the session's folder."""
    records = Records(
        folder,
        colors_of,
        settings={"options": {"model": "tumor-test"}},
        record_format=record_format,
        save_empty_field=save_empty_field,
    )
    session = records.start_session("stand-in camera")
    for number, frame in enumerate(frames, 1):
        records.offer(frame, overlay_of(frame))
        wait_until(lambda number=number: lines_of(session, "frame")[number - 1 :], "the frame's line")  # type: ignore[misc]
    records.note(time.monotonic(), "operator", "objective 20x")
    records.close()
    assert not records.trouble
    return session


def lines_of(session: Path, kind: str = "") -> list[dict[str, Any]]:
    text = (session / LOG_FILE).read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in lines if not kind or line["kind"] == kind]


def noisy_frames(count: int, *, bits: int = 8, bayer: str = "RGGB", channels: int = 0) -> list[Frame]:
    """Return frames that differ, a step apart."""
    rng = np.random.default_rng(0)
    shape = (48, 64, channels) if channels else (48, 64)
    now_s = time.monotonic()
    return [
        Frame(
            rng.integers(0, 2**bits, shape, dtype=np.uint8 if bits == 8 else np.uint16),
            now_s + number * STEP_S,
            2 * number,
            bits=bits,
            bayer=bayer,
            exposure_ms=4.0,
            pixel_size_um=0.5,
            objective="20x",
        )
        for number in range(count)
    ]


def played(session: Path, count: int) -> list[Frame]:
    """Return all frames of a session; those that a busy machine passes over come again in the next round."""
    last = lines_of(session, "frame")[-1]["number"]
    frames: dict[int, Frame] = {}
    with ReplayCamera(f"{session},loop") as camera:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(frames) < count and time.monotonic() < deadline_s:
            frame = camera.grab(10.0)
            frames.setdefault(frame.number % (last + 1), frame)
    return [frames[number] for number in sorted(frames)]


# -- snapshots ----------------------------------------------------------------------------------------------


def test_a_snapshot_holds_frame_heat_map_overlay_outline_and_settings(tmp_path: Path) -> None:
    frame = stand_in_frame(180)
    folder = write_snapshot(
        tmp_path / "snap",
        frame,
        overlay_of(frame),
        develop=colors_of,
        settings={"options": {"threshold": 0.4}, "model_hash": "abc"},
        comment="a nest at the border",
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "frame.tif",
        "heat_map.tif",
        "outline.geojson",
        "overlay.png",
        "settings.json",
    ]
    image = open_image(folder / "frame.tif")
    assert image.rgb
    assert image.pixel_size_um == pytest.approx(0.5)
    np.testing.assert_array_equal(image.read()[0, :, 0].transpose(1, 2, 0), frame.pixels)
    heat_map = open_image(folder / "heat_map.tif")
    assert heat_map.dtype == np.float32
    assert heat_map.pixel_size_um == pytest.approx(0.5 * 96 / 12)
    np.testing.assert_allclose(heat_map.read()[0, 0, 0], overlay_of(frame).heat_map / 255, atol=1e-6)  # type: ignore[operator]
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    assert settings["research_use_only"] == "Research use only."
    assert settings["comment"] == "a nest at the border"
    assert settings["pixel_size_um"] == 0.5
    assert settings["objective"] == "20x"
    assert settings["threshold"] == 0.45
    assert settings["options"] == {"threshold": 0.4}
    assert settings["model_hash"] == "abc"
    assert settings["timings_ms"] == {"inference": 3.25}
    assert "lincei" in settings["versions"]


def test_the_outline_of_a_snapshot_is_read_back_as_it_was(tmp_path: Path) -> None:
    frame = stand_in_frame(180)
    folder = write_snapshot(tmp_path / "snap", frame, overlay_of(frame), develop=colors_of, settings={})
    (annotation,) = read_geojson(folder / "outline.geojson")
    assert annotation.name == "Tumor"
    corners = {tuple(corner) for corner in np.round(annotation.region.exterior, 2).tolist()}
    assert corners == {tuple(corner) for corner in SQUARE.tolist()}
    assert len(annotation.region.holes) == 1


def test_the_overlay_of_a_snapshot_is_drawn_over_its_frame(tmp_path: Path) -> None:
    frame = stand_in_frame(180, size_px=(960, 640))
    overlay = overlay_of(frame, regions=(Region(SQUARE * 10, score=0.9),))
    folder = write_snapshot(tmp_path / "snap", frame, overlay, develop=colors_of, settings={})
    picture = iio.imread(folder / "overlay.png").astype(int)
    assert picture.shape == (640, 960, 3)
    green = (picture[..., 1] > picture[..., 0] + 60) & (picture[..., 1] > picture[..., 2] + 60)
    assert green[95:105, 200:400].any(axis=0).all()  # the upper edge of the square
    assert not green[250, 300]


def test_a_blank_overlay_makes_a_snapshot_without_outlines(tmp_path: Path) -> None:
    frame = stand_in_frame(180)
    overlay = Overlay(0, frame.time_s, frame.size_px, blank_reason="focus")
    folder = write_snapshot(tmp_path / "snap", frame, overlay, develop=colors_of, settings={})
    assert not (folder / "heat_map.tif").exists()
    assert read_geojson(folder / "outline.geojson") == []
    assert json.loads((folder / "settings.json").read_text())["blank_reason"] == "focus"


def test_a_snapshot_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def develop(frame: Frame) -> NDArray[np.uint8]:
        raise LinceiError("the camera is monochrome")

    frame = stand_in_frame(0)
    with pytest.raises(LinceiError, match="monochrome"):
        write_snapshot(tmp_path / "snap", frame, overlay_of(frame), develop=develop, settings={})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recording, "_CLOSE_S", 0.2)
    answers = threading.Event()

    def develop(frame: Frame) -> NDArray[np.uint8]:
        answers.wait(PATIENCE_S)
        return colors_of(frame)

    records, frame = Records(tmp_path, develop), stand_in_frame(0)
    troubles: list[str] = []
    records.on_trouble = troubles.append
    futures = [records.snapshot(frame, overlay_of(frame)) for _ in range(2)]
    records.close()
    assert not any(future.done() for future in futures)
    assert "the disk does not answer: 2" in troubles[0]
    answers.set()
    assert len({future.result(PATIENCE_S) for future in futures}) == 2
    records.close()
    assert len(troubles) == 1


def test_snapshots_from_the_running_loop_are_folders_of_their_own_with_its_state(tmp_path: Path) -> None:
    records = Records(tmp_path, colors_of, settings={"options": {"model": "tumor-test"}})

    def alignment(objective: str, size_px: tuple[int, int]) -> NDArray[Any]:
        return np.diag([2.0, 2.0, 1.0])

    with Loop(StandInCamera, StandInLive(), records=records, alignment=alignment) as loop:
        wait_until(lambda: loop.status().frames_out > 3, "answers")
        folders = [loop.snapshot(f"comment {number}").result(60) for number in range(2)]
        wait_until(lambda: len(loop.status().events) >= 3, "events")
        assert str(folders[0]) in loop.status().events[1].text
    assert len(set(folders)) == 2
    for number, folder in enumerate(folders):
        settings = json.loads((folder / "settings.json").read_text("utf-8"))
        assert settings["comment"] == f"comment {number}"
        assert settings["threshold"] == OWN_THRESHOLD
        assert settings["alignment"] == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
        assert settings["loop"]["camera"] == "stand-in camera"
        assert settings["loop"]["stages_ms"]["debayer"] == 1.0
        assert settings["loop"]["shown_in_eyepiece"] is True


# -- sessions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "bayer", "channels"), [(8, "RGGB", 0), (12, "GBRG", 0), (8, "", 3)])
def test_a_recorded_session_plays_back_pixel_by_pixel(
    bits: int, bayer: str, channels: int, tmp_path: Path
) -> None:
    frames = noisy_frames(4, bits=bits, bayer=bayer, channels=channels)
    session = record(tmp_path, frames)
    for frame, other in zip(frames, played(session, 4), strict=True):
        np.testing.assert_array_equal(other.pixels, frame.pixels)
        assert other.pixels.dtype == frame.pixels.dtype
        for name in ("bits", "bayer", "exposure_ms", "pixel_size_um", "objective"):
            assert getattr(other, name) == getattr(frame, name)


def test_a_recorded_session_is_an_ome_zarr_image_with_its_pixel_size(tmp_path: Path) -> None:
    session = record(tmp_path, noisy_frames(3, bayer="", channels=3))
    image = open_image(session / "frames_1.ome.zarr")
    assert image.shape == (3, 3, 1, 48, 64)
    assert image.pixel_size_um == pytest.approx(0.5)


def test_the_log_has_a_line_for_the_session_each_frame_and_each_event(tmp_path: Path) -> None:
    frames = noisy_frames(3)
    session = record(tmp_path, frames)
    first, *_ = lines_of(session)
    assert first["kind"] == "session"
    assert first["research_use_only"] == "Research use only."
    assert first["camera"] == "stand-in camera"
    assert first["settings"] == {"options": {"model": "tumor-test"}}
    logged = lines_of(session, "frame")
    assert [line["number"] for line in logged] == [0, 2, 4]
    assert [line["index"] for line in logged] == [0, 1, 2]
    assert logged[0]["regions"][0]["exterior"] == SQUARE.tolist()
    assert logged[0]["measures"] == {"percent_tumor": 12.5}
    assert logged[0]["timings_ms"] == {"inference": 3.25}
    assert [line["text"] for line in lines_of(session, "event")] == ["objective 20x"]
    assert lines_of(session, "end")[0]["frames"] == 3


def test_frames_of_another_size_go_into_another_part_and_play_back(tmp_path: Path) -> None:
    small = noisy_frames(2)
    now_s = small[-1].time_s
    large = [stand_in_frame(7 + n, now_s + (1 + n) * STEP_S, (128, 80), bayer="RGGB") for n in range(2)]
    session = record(tmp_path, [*small, *large])
    assert [line["part"] for line in lines_of(session, "frame")] == [
        *["frames_1.ome.zarr"] * 2,
        *["frames_2.ome.zarr"] * 2,
    ]
    assert [frame.size_px for frame in played(session, 4)] == [(64, 48)] * 2 + [(128, 80)] * 2


def test_a_video_holds_the_developed_frames_and_plays_back(tmp_path: Path) -> None:
    frames = [stand_in_frame(40 * n, time.monotonic() + n * STEP_S, (64, 48)) for n in range(4)]
    session = record(tmp_path, frames, record_format="video")
    assert (session / "frames_1.avi").stat().st_size > 0
    assert recorded_empty_field(str(session)) == (True, None)
    for frame, other in zip(frames, played(session, 4), strict=True):
        assert other.bayer == ""
        assert other.pixels.shape == frame.pixels.shape
        assert np.abs(other.pixels.astype(int) - frame.pixels).max() <= 4  # JPEG


def test_a_recording_keeps_the_empty_field_that_it_was_balanced_with(tmp_path: Path) -> None:
    session = record(
        tmp_path, noisy_frames(1), save_empty_field=lambda path: path.write_bytes(b"white balance")
    )
    assert recorded_empty_field(str(session)) == (False, session / EMPTY_FIELD_FILE)


def test_a_session_of_the_running_loop_is_replayed_through_another_model(tmp_path: Path) -> None:
    records = Records(tmp_path, colors_of)
    with Loop(lambda: StandInCamera(fps=40), StandInLive(), records=records) as loop:
        loop.start_recording()
        wait_until(lambda: loop.status().frames_out >= 10, "answers")
        loop.set_objective("40x")
        loop.stop_recording()
        assert not loop.status().recording
    recorded = [line["number"] for line in lines_of(session_folder(tmp_path), "frame")]
    assert len(recorded) >= 5
    texts = [line["text"] for line in lines_of(session_folder(tmp_path), "event")]
    assert "objective 40x" in texts
    other = StandInLive()
    other.model = "another"
    with Loop(lambda: new_camera(f"replay:{tmp_path}"), other) as loop:
        assert loop.wait(60)
        latest = loop.latest()
    assert latest is not None
    assert latest[1].model == "another"
    assert set(other.seen) <= set(recorded)
    assert other.seen[-1] == recorded[-1]


# -- replay -------------------------------------------------------------------------------------------------


def test_frames_come_at_their_times_and_late_ones_are_passed_over(tmp_path: Path) -> None:
    session = record(tmp_path, noisy_frames(6))
    with ReplayCamera(str(session)) as camera:
        first = camera.grab(10)
        began_s = first.time_s - first.number / 2 * STEP_S
        time.sleep(3.5 * STEP_S)
        due = int((time.monotonic() - began_s) / STEP_S)
        later = camera.grab(10)
    assert later.number / 2 >= min(due, 5) >= 3
    assert later.time_s <= time.monotonic()
    assert later.time_s - began_s == pytest.approx(later.number / 2 * STEP_S, abs=1e-4)


def test_a_long_pause_is_shortened_so_that_the_loop_does_not_take_the_camera_for_lost(tmp_path: Path) -> None:
    frames = noisy_frames(6)
    # The camera was unplugged for an hour between the third and the fourth frame.
    frames = [replace(frame, time_s=frame.time_s + 3600 * (n > 2)) for n, frame in enumerate(frames)]
    camera = ReplayCamera(str(record(tmp_path, frames)))
    times_s: dict[int, float] = {}
    with camera:
        while 10 not in times_s:
            # So long the loop waits.
            frame = camera.grab(max(1.0, 4 * (camera.frame_interval_s or 0)))
            times_s[frame.number] = frame.time_s
    assert times_s[10] - min(times_s.values()) < 1


def test_rounds_of_a_recording_that_began_late_leave_no_gap_in_the_numbers(tmp_path: Path) -> None:
    frames = [replace(frame, number=5000 + frame.number) for frame in noisy_frames(2)]
    with ReplayCamera(f"{record(tmp_path, frames)},loop") as camera:
        numbers = [camera.grab(10).number for _ in range(4)]
    # A frame that a busy machine passes over is a gap of its own.
    assert all(later - earlier <= 6 for earlier, later in itertools.pairwise(numbers))


def test_a_session_says_how_far_apart_its_frames_are_from_its_first_one(tmp_path: Path) -> None:
    records = Records(tmp_path, colors_of)
    session = records.start_session("stand-in camera", interval_s=0.5)
    (frame,) = noisy_frames(1)
    records.offer(frame, overlay_of(frame))
    records.close()
    axes = json.loads((session / "frames_1.ome.zarr" / "zarr.json").read_text())
    (multiscale,) = axes["attributes"]["ome"]["multiscales"]
    (scale,) = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"][0] == 0.5


def test_after_the_last_frame_the_recording_is_over_unless_it_is_to_loop(tmp_path: Path) -> None:
    session = record(tmp_path, noisy_frames(2))
    with ReplayCamera(str(session)) as camera:
        while camera.grab(10).number < 2:
            pass
        with pytest.raises(CameraEndedError, match="over"):
            camera.grab(10)
    with ReplayCamera(f"{session},loop") as camera:
        numbers = [camera.grab(10).number for _ in range(5)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] > 3


def test_a_recording_that_was_cut_off_plays_up_to_there(tmp_path: Path) -> None:
    session = record(tmp_path, noisy_frames(3))
    log = session / LOG_FILE
    lines = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:3]) + lines[3][:40], "utf-8")
    with ReplayCamera(str(session)) as camera:
        assert camera.grab(10).number in (0, 2)
        assert camera.frame_interval_s == pytest.approx(STEP_S, abs=1e-4)


def test_bad_recordings_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"no recorded session.*lincei arm --record"):
        ReplayCamera(str(tmp_path)).open()
    with pytest.raises(CameraError, match=r"no setting 'speed'.*loop"):
        ReplayCamera(f"{tmp_path},speed=2")
    first = record(tmp_path / "a", noisy_frames(1))
    record(tmp_path / "a" / "b", noisy_frames(1))
    (tmp_path / "a" / "c").mkdir()
    (tmp_path / "a" / "c" / LOG_FILE).write_text("{}\n")
    with pytest.raises(CameraError, match="2 recorded sessions"):
        ReplayCamera(str(tmp_path / "a")).open()
    log = first / LOG_FILE
    good = log.read_text()
    log.write_text(good.replace('"part":"frames_1.ome.zarr"', '"part":"../../frames"'))
    with pytest.raises(CameraError, match="outside the folder"):
        ReplayCamera(str(first)).open()
    log.write_text(good.replace('"index":0', '"index":"x"'))
    with pytest.raises(CameraError, match="line of the log"):
        ReplayCamera(str(first)).open()
    log.write_text(good.replace('"kind":"frame"', '"kind":"other"'))
    with pytest.raises(CameraError, match="no frames were recorded"):
        ReplayCamera(str(first)).open()


def test_closing_from_another_thread_ends_a_waiting_grab(tmp_path: Path) -> None:
    import threading

    frames = noisy_frames(2)
    far = Frame(frames[1].pixels, frames[0].time_s + 3600, 2, bayer="RGGB")
    camera = ReplayCamera(str(record(tmp_path, [frames[0], far])))
    camera.open()
    camera.grab(10)
    threading.Timer(0.1, camera.close).start()
    with pytest.raises(CameraError, match="closed"):
        camera.grab(60)
    with pytest.raises(CameraError, match="closed"):
        camera.grab(60)
