"""The demonstration of the augmented-reality microscope."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from arm_overlay import demo
from arm_overlay.cameras.simulated import SimulatedCamera
from arm_overlay.frames import Frame
from arm_overlay.live import LOADING
from arm_overlay.outline import regions_of
from arm_overlay.overlay import Overlay, Region
from lincei.report import Page, Section, render_page

SPEC = "size=192x128,area_um=200,objective=4x,speed=1"


@pytest.fixture
def camera() -> SimulatedCamera:
    return SimulatedCamera(SPEC)


def frame_of(camera: SimulatedCamera, number: int) -> Frame:
    return Frame(camera.frame_pixels(number), float(number), number, bayer="RGGB", objective="4x")


def overlay_of(frame: Frame, *regions: Region, blank_reason: str = "") -> Overlay:
    return Overlay(
        frame.number, frame.time_s, frame.size_px, regions=regions, blank_reason=blank_reason, objective="4x"
    )


def square(left: float, top: float, side: float) -> np.ndarray:
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    return side * corners + np.array([left, top], np.float32)


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> tuple[Section, Path]:
    """The demonstration, shorter and smaller, with the shipped model."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "CAMERA", "simulated:size=640x400,area_um=200,fps=10,speed=0.1")
        patch.setattr(demo, "SECONDS", 5.0)
        [section] = demo.run(out)
    return section, out


class TestRun:
    def test_it_shows_a_movie_that_is_a_small_file_too(self, sections: tuple[Section, Path]):
        section, out = sections
        figure, still = section.figures
        assert not still.movie
        assert still.pixel_size_um is not None
        movie = Picture.open(io.BytesIO(figure.movie))
        assert movie.format == "WEBP"
        assert movie.size == (480, 300)
        assert movie.n_frames > 5
        [path] = out.iterdir()
        assert path.read_bytes() == figure.movie
        assert path.name in " ".join(section.text)
        assert len(figure.movie) < 3e6

    def test_it_says_how_many_frames_a_second_and_how_late(self, sections: tuple[Section, Path]):
        section, _ = sections
        values = {row[0]: row[1] for row in section.tables[0].rows}
        assert 0 < values["frames answered a second"] < 12
        assert any(
            "95 of 100" in str(name) and str(value).endswith("ms or less") for name, value in values.items()
        )
        stages = {row[0]: row[1] for row in section.tables[1].rows}
        assert stages["the network"] > 0
        assert stages["colors from the raw frame"] > 0

    def test_what_is_outlined_is_the_drawn_tumor(self, sections: tuple[Section, Path]):
        section, _ = sections
        [dice] = [row[1] for row in section.tables[0].rows if "Dice" in str(row[0])]
        assert 0.6 < float(dice) <= 1

    def test_research_use_only_and_simulated_are_said(self, sections: tuple[Section, Path]):
        section, _ = sections
        assert section.text[0].startswith("Simulated data: ")
        assert "Research use only" in section.notes[0]

    def test_the_page_holds_the_movie_itself(self, sections: tuple[Section, Path]):
        page = render_page(Page("demo", sections=(sections[0],)))
        assert '<img src="data:image/webp;base64,' in page
        assert "http" not in page.split("<body", 1)[1]


def test_the_slide_begins_to_move_when_the_model_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "CAMERA", f"simulated:{SPEC}")
    events: list[str] = []
    reasons = iter([LOADING, LOADING, ""])

    class Live:
        def __enter__(self) -> Live:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def step(self, frame: Frame) -> Overlay:
            events.append("step")
            return overlay_of(frame, blank_reason=next(reasons))

    def loop(*_: object, **__: object) -> None:
        events.append("loop")
        raise KeyboardInterrupt

    monkeypatch.setattr("arm_overlay.live.LiveOutline", lambda **_: Live())
    monkeypatch.setattr("arm_overlay.loop.Loop", loop)
    with pytest.raises(KeyboardInterrupt):
        demo.watch()
    assert events == ["step", "step", "step", "loop"]


class TestParts:
    def test_the_movie_has_a_picture_for_each_frame(self, camera: SimulatedCamera):
        frames = [frame_of(camera, number) for number in (0, 60, 120)]
        region = Region(square(40, 30, 60))
        pairs = [(frames[0], overlay_of(frames[0], region)), *((f, overlay_of(f)) for f in frames[1:])]
        movie: Any = Picture.open(io.BytesIO(demo.movie_of(pairs)))
        assert movie.n_frames == 3
        pictures = []
        for place in range(3):
            movie.seek(place)
            pictures.append(np.asarray(movie.convert("RGB")).astype(int))
        # The first has an outline in green where the others have tissue.
        more_green = pictures[0][..., 1] - pictures[0][..., 0]
        assert (more_green > 60).sum() > 200
        assert (pictures[1][:200, ..., 1] - pictures[1][:200, ..., 0] > 60).sum() < 20

    def test_agreement_is_1_for_the_truth_and_less_for_anything_else(self, camera: SimulatedCamera):
        frame, truth = frame_of(camera, 0), camera.truth(0).tumor
        assert 0 < truth.mean() < 1
        exact = overlay_of(
            frame, *regions_of(truth.astype(np.float32), 0.5, cell_px=1, size_px=frame.size_px)
        )
        found = demo.agreement(camera, [(frame, exact)])
        assert found is not None
        assert found > 0.97
        wrong = demo.agreement(camera, [(frame, overlay_of(frame, Region(square(0, 0, 5))))])
        assert wrong is not None
        assert wrong < 0.2

    def test_holes_are_not_outlined_tissue(self, camera: SimulatedCamera):
        frame = frame_of(camera, 0)
        mask = demo.filled(overlay_of(frame, Region(square(20, 20, 60), (square(40, 40, 20),))))
        assert mask.sum() == 60**2 - 20**2
        assert mask[25, 25]
        assert not mask[50, 50]
        assert not mask[5, 5]

    def test_frames_that_showed_nothing_do_not_count(self, camera: SimulatedCamera):
        frame = frame_of(camera, 0)
        assert demo.agreement(camera, [(frame, overlay_of(frame, blank_reason="focus"))]) is None


def test_the_light_install_says_what_is_missing_and_shows_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else real(name))
    [section] = demo.run(tmp_path)
    assert "OpenCV" in section.text[0]
    assert "Shapely" not in section.text[0]
    assert "pip install 'lincei[arm]'" in section.text[0]
    assert section.figures[0].image_rgb.std() > 20
    assert "Research use only" in section.notes[0]
