"""`lincei arm` as a user runs it: with a recorded slide, a tiny model, and two real monitors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from loop_stand_ins import wait_until
from tiny_tumor_models import write_tiny_model
from virtual_screens import EYEPIECE, EYEPIECE_SIZE, TwoMonitors

from arm_overlay.arm_commands import Colors, _told, empty_field_file
from arm_overlay.developing import Developing, write_developing
from arm_overlay.display_alignment import Alignment, save_alignment
from arm_overlay.frames import Frame
from arm_overlay.overlay import Overlay
from arm_overlay.recording import LOG_FILE, Records, session_folder
from arm_overlay.rendering import fit
from arm_overlay.settings import ArmOptions
from lincei.cli import main

SIZE = (320, 192)
FRAMES, STEP_S = 20, 0.05
# The tiny model takes dark for tumor: a disk of 45 um radius.
DISK = (160, 96, 45)
# Long enough for a busy machine; the process is ended when it has shown what it should.
LONG_S = 120


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a recorded slide and a model, where `lincei arm` keeps its things too."""
    monkeypatch.setenv("LINCEI_ARM", str(tmp_path / "arm"))
    monkeypatch.setenv("LINCEI_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    write_tiny_model(tmp_path / "models" / "tiny")
    write_tiny_model(tmp_path / "models" / "other", threshold=0.9)
    pixels = np.full((SIZE[1], SIZE[0], 3), 235, np.uint8)
    cv2.circle(pixels, DISK[:2], DISK[2], (90, 40, 110), -1)
    recorded(tmp_path / "slide", pixels)
    return tmp_path


def recorded(folder: Path, pixels: Any, bayer: str = "") -> None:
    """Record a slide that does not move."""
    records = Records(folder, lambda frame: frame.pixels)
    session = records.start_session("test camera")
    for number in range(FRAMES):
        frame = Frame(pixels, number * STEP_S, number, bayer=bayer, pixel_size_um=1.0, objective="20x")
        records.offer(frame, Overlay(number, frame.time_s, frame.size_px))
        written = f'"number":{number},'
        wait_until(lambda written=written: written in (session / LOG_FILE).read_text(), "a frame")  # type: ignore[misc]
    records.close()


def words(here: Path, *more: str, camera: str = "", model: str = "tiny") -> list[str]:
    """Return the arguments that all runs have; the slide again and again, when no camera is named."""
    return [
        *("arm", "--camera", camera or f"replay:{here / 'slide'},loop", "--model", model),
        *("--no-window", "--no-focus-gate", "--records", str(here / "records"), *more),
    ]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``lincei`` in a process of its own, which is ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lincei", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate(timeout=60)


def heard(process: subprocess.Popen[str], text: str) -> None:
    """Wait until a process says something."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"it never said {text!r}: {''.join(lines)}")


# -- running ------------------------------------------------------------------------------------------------


def test_it_runs_for_some_seconds_and_writes_its_statistics(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = here / "out" / "stats.json"
    assert main(words(here, "--seconds", "3", "--stats", str(stats))) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(stats)
    assert err.startswith("Research use only.")
    assert "nothing is shown in the eyepiece" in err
    statistics = json.loads(stats.read_text())
    assert statistics["research_use_only"] is True
    assert statistics["frames_out"] > 0
    assert statistics["objective"] == "20x"
    assert set(statistics["latency_ms"]) == {"p50", "p95", "p99"}
    assert {"grab", "debayer", "inference", "outline", "warp", "display"} <= set(statistics["stages_ms"])
    assert 0 < statistics["fps_out"] <= 25


def test_it_ends_with_a_recording_that_is_played_once(here: Path) -> None:
    stats = here / "stats.json"
    assert main(words(here, "--stats", str(stats), camera=f"replay:{here / 'slide'}")) == 0
    assert json.loads(stats.read_text())["frames_taken"] <= FRAMES


def test_what_it_records_is_replayed_through_another_model(here: Path) -> None:
    assert main(words(here, "--seconds", "3", "--record", str(here / "session"))) == 0
    session = session_folder(here / "session")
    first, *lines = [json.loads(line) for line in (session / LOG_FILE).read_text().splitlines()]
    assert first["research_use_only"] == "Research use only."
    assert first["settings"]["options"]["model"] == "tiny"
    assert len(first["settings"]["model_hash"]) == 64
    frames = [line for line in lines if line["kind"] == "frame"]
    (region,) = frames[-1]["regions"]
    outline = np.array(region["exterior"])
    np.testing.assert_allclose(outline.mean(axis=0), DISK[:2], atol=6)
    again = words(here, "--record", str(here / "again"), camera=f"replay:{session}", model="other")
    assert main(again) == 0
    log = (session_folder(here / "again") / LOG_FILE).read_text().splitlines()
    models = {json.loads(line)["model"] for line in log if '"kind":"frame"' in line}
    assert models == {"other"}


def test_settings_come_from_a_file_and_flags_win(here: Path) -> None:
    stats = here / "stats.json"
    settings = here / "arm.toml"
    slide = (here / "slide").as_posix()
    settings.write_text(
        f"[camera]\ncamera = 'replay:{slide},loop'\n[live]\nmodel = 'nothing'\nmode = 'text'\n"
        f"focus_gate = false\n[record]\nrecords = '{(here / 'records').as_posix()}'\n"
        f"[run]\nwindow = false\nseconds = 1\nstats = '{stats.as_posix()}'\n"
    )
    assert main(["arm", "--settings", str(settings), "--model", "tiny"]) == 0
    statistics = json.loads(stats.read_text())
    assert (statistics["model"], statistics["mode"]) == ("tiny", "text")


@pytest.mark.parametrize(
    ("how", "seconds", "status"),
    [(signal.SIGINT, None, 0), (signal.SIGINT, LONG_S, 130), (signal.SIGTERM, None, 0)],
)
def test_stopping_it_finishes_records_and_statistics(
    how: signal.Signals,
    seconds: float | None,
    status: int,
    here: Path,
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    stats = here / "stats.json"
    more = ["--stats", str(stats), "--record", str(here / "session")]
    process = started(words(here, *more, *(["--seconds", str(seconds)] if seconds else [])))
    heard(process, "recording to")
    wait_until(
        lambda: '"kind":"frame"' in (session_folder(here / "session") / LOG_FILE).read_text(), "frames"
    )
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert json.loads(stats.read_text())["frames_out"] > 0
    log = (session_folder(here / "session") / LOG_FILE).read_text().splitlines()
    assert json.loads(log[-1])["kind"] == "end"


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["arm"], 2, ["no camera was named", "lincei arm cameras"]),
        (["arm", "--camera", "webcam:1"], 2, ["no kind of camera 'webcam'", "basler", "simulated"]),
        (["arm", "--camera", "replay:nowhere"], 1, ["nowhere", "lincei arm --record"]),
        (["arm", "--camera", "SLIDE", "--model", "nothing"], 1, ["nothing"]),
        (["arm", "--camera", "SLIDE", "--field-of-view", "0.5"], 2, ["--field-of-view", "three"]),
        (["arm", "--camera", "SLIDE", "--brightness", "2"], 2, ["--brightness is 2", "at most 1"]),
        (["arm", "--camera", "SLIDE", "--mode", "heat"], 2, ["--mode is 'heat'", "heatmap"]),
        (["arm", "--camera", "SLIDE", "--objective", "big"], 2, ["'big' is no objective", "20x"]),
        (["arm", "--camera", "SLIDE", "--empty-field", "none.npz"], 1, ["none.npz"]),
        (["arm", "--camera", "SLIDE", "cameras"], 2, ["after it: lincei arm cameras"]),
        (["arm", "--settings", "arm.toml"], 2, ["arm.toml, line 2", "thresold", "'threshold'"]),
        (["arm", "--settings", "none.toml"], 2, ["none.toml", "arm_files"]),
        (
            ["arm", "align", "--camera", "SLIDE", "--display", "none", "--objective", "20x"],
            2,
            ["no display was named", "lincei arm displays"],
        ),
        (["arm", "empty-field", "--camera", "SLIDE,loop"], 1, ["not empty", "clear glass"]),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str],
    status: int,
    told: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    (here / "arm.toml").write_text("[live]\nthresold = 0.5\n")
    arguments = [word.replace("SLIDE", f"replay:{here / 'slide'}") for word in arguments]
    if "--camera" in arguments and arguments[1] == "--camera" and "cameras" not in arguments:
        arguments += [] if "--model" in arguments else ["--model", "tiny"]
    assert main(arguments) == status
    _, err = capsys.readouterr()
    for text in told:
        assert text in err
    assert "did not foresee" not in err


# -- cameras, displays, empty field -------------------------------------------------------------------------


def test_cameras_are_listed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arm", "cameras", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert set(listed) == {"cameras", "problems"}
    assert main(["arm", "cameras"]) == 0
    out = capsys.readouterr().out
    for camera in listed["cameras"]:
        assert camera["spec"] in out
        assert camera["name"] in out


def test_displays_are_listed_and_an_unknown_one_is_told_with_those_there_are(
    two_monitors: TwoMonitors, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["arm", "displays"]) == 0
    out = capsys.readouterr().out
    assert EYEPIECE in out
    assert "1280x720" in out
    assert main(["arm", "displays", "--json"]) == 0
    assert [monitor["name"] for monitor in json.loads(capsys.readouterr().out)][1] == EYEPIECE
    write_tiny_model(tmp_path / "tiny")
    slide = np.full((64, 96, 3), 235, np.uint8)
    recorded(tmp_path / "slide", slide)
    arguments = ["arm", "--camera", f"replay:{tmp_path / 'slide'}", "--model", str(tmp_path / "tiny")]
    assert main([*arguments, "--no-window", "--display", "HDMI-7"]) == 2
    err = capsys.readouterr().err
    assert "no monitor 'HDMI-7'" in err
    assert EYEPIECE in err


def test_an_empty_field_is_taken_once_and_found_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    # Behind the mosaic, blue is weak and the corners are darker.
    y, x = np.mgrid[:128, :192]
    light = 1 - 0.3 * (((x - 96) / 96) ** 2 + ((y - 64) / 64) ** 2) / 2
    mosaic = np.tile(np.array([[150.0, 190.0], [190.0, 90.0]]), (64, 96)) * light
    recorded(
        here / "glass", np.clip(mosaic + rng.normal(0, 2, mosaic.shape), 0, 255).astype(np.uint8), "RGGB"
    )
    camera = f"replay:{here / 'glass'},loop"
    assert main(["arm", "empty-field", "--camera", camera, "--objective", "20x"]) == 0
    out, err = capsys.readouterr()
    path = empty_field_file(camera, "20x")
    assert out.strip() == str(path)
    assert "blue" in err
    with np.load(path) as stored:
        red, green, blue = stored["white_balance"]
        assert blue > red > green
        assert stored["flat_field"].max() > 1.05
    arguments = words(here, "--seconds", "1", "--objective", "20x", "--empty-field", str(path))
    assert main(arguments) == 0
    other = here / "mine.npz"
    assert main(["arm", "empty-field", "--camera", camera, "--out", str(other)]) == 0
    assert other.is_file()
    assert [p.name for p in here.iterdir() if "part" in p.name] == []


def test_no_record_and_no_file_name_holds_a_cameras_password() -> None:
    camera = "rtsp://observer:se@cret@192.168.0.9/microscope"
    assert empty_field_file(camera, "20x").name == "rtsp-192-168-0-9-microscope-20x.npz"
    told = _told(ArmOptions(camera=camera, objective="20x"))
    assert told["camera"] == "rtsp://192.168.0.9/microscope"
    assert told["objective"] == "20x"
    assert "cret" not in str(told)


def test_colors_follow_the_objective_and_no_field_is_evened_with_another_ones_light(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINCEI_ARM", str(tmp_path))
    flat = np.full((4, 6, 3), 1.1, np.float32)
    for objective, blue in (("20x", 1.5), ("10x", 1.6)):
        path = empty_field_file("usb:0", objective)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_developing(path, Developing((1.0, 1.0, blue), flat))
    empty_field_file("usb:0", "4x").write_bytes(b"damaged")
    told: list[str] = []
    colors = Colors(ArmOptions(camera="usb:0", objective="20x"), told.append)
    used: list[Developing] = []
    for objective in ("20x", "10x", "10x", "40x", "4x", "20x"):
        colors.follow(objective, used.append)
    assert [(each.white_balance[2], each.flat_field is not None) for each in used] == [
        (1.6, True),
        (1.6, False),
        (1.6, False),
        (1.5, True),
    ]
    assert colors.developing is used[-1]
    assert "no empty field was taken for 40x" in told[-2]
    assert empty_field_file("usb:0", "4x").name in told[-1]


# -- two monitors -------------------------------------------------------------------------------------------


def aligned(display: str = EYEPIECE) -> None:
    """Store an alignment for the slide's camera and the eyepiece's monitor."""
    save_alignment(
        Alignment(
            matrix=fit(SIZE, EYEPIECE_SIZE),
            kind="similarity",
            objective="20x",
            camera_size_px=SIZE,
            display_size_px=EYEPIECE_SIZE,
            display=display,
            method="manual",
        )
    )


def disk_is_outlined(screens: TwoMonitors) -> bool:
    """Tell whether the eyepiece shows an outline around the disk, to a cell of the model."""
    rows, columns = np.nonzero(screens.eyepiece_pixels()[..., 1] > 120)
    if not rows.size:
        return False
    scale = EYEPIECE_SIZE[1] / SIZE[1]
    left = (EYEPIECE_SIZE[0] - scale * SIZE[0]) / 2
    x, y, radius = left + scale * DISK[0], scale * DISK[1], scale * DISK[2]
    shown = (columns.min(), columns.max(), rows.min(), rows.max())
    return bool(np.allclose(shown, (x - radius, x + radius, y - radius, y + radius), atol=8 * scale))


def test_the_outline_lies_on_the_tissue_and_a_stopped_or_killed_process_leaves_the_eyepiece_dark(
    here: Path, two_monitors: TwoMonitors, started: Callable[..., subprocess.Popen[str]]
) -> None:
    aligned()
    process = started(words(here, "--display", EYEPIECE))
    heard(process, "connected to")
    wait_until(lambda: disk_is_outlined(two_monitors), "the outline where the disk is")
    process.send_signal(signal.SIGSTOP)
    wait_until(two_monitors.eyepiece_is_black, "darkness after the process was stopped")
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: disk_is_outlined(two_monitors), "the outline again")
    assert process.poll() is None

    process.kill()
    wait_until(two_monitors.eyepiece_is_uncovered, "the end of the display's process")
    assert two_monitors.operator_is_untouched()


def test_with_a_screen_there_is_a_window_and_its_process_has_no_tensorflow_in_it(
    here: Path, two_monitors: TwoMonitors, started: Callable[..., subprocess.Popen[str]]
) -> None:
    arguments = [word for word in words(here) if word != "--no-window"]
    process = started(arguments)
    wait_until(lambda: not two_monitors.operator_is_untouched(), "the window")
    if sys.platform == "linux":
        assert "site-packages/tensorflow/" not in Path(f"/proc/{process.pid}/maps").read_text()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    two_monitors.refresh_desktop()


def test_without_an_alignment_nothing_is_lit_and_the_operator_is_told(
    here: Path, two_monitors: TwoMonitors, started: Callable[..., subprocess.Popen[str]]
) -> None:
    stats = here / "stats.json"
    process = started(words(here, "--display", EYEPIECE, "--stats", str(stats)))
    heard(process, "not aligned for 20x")
    # "Research use only" is shown at first.
    wait_until(two_monitors.eyepiece_is_black, "darkness")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    statistics = json.loads(stats.read_text())
    assert statistics["blank_frames"]["not aligned"] > 0
    assert statistics["latency_frames"] == 0
