"""How overlays look: where lines lie, what each mode shows, what is left black."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from arm_overlay.overlay import MODES, Arrow, Overlay, Region
from arm_overlay.rendering import PULSE_PERIOD_S, Renderer, Style, draw, drawn_over, fit, pulse
from lincei.errors import LinceiError

FRAME = (640, 360)
SIZE = (1280, 720)


def circle(center: tuple[float, float], radius: float, corners: int = 200) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1) + center
    return ring.astype(np.float32)


def overlay(**details: Any) -> Overlay:
    return Overlay(0, 0.0, FRAME, **details)


DISK = Region(circle((320, 180), 100), (circle((320, 180), 40),))
HEAT = np.zeros((45, 80), np.uint8)
HEAT[10:20, 30:50] = 255
FULL = {
    "regions": (DISK,),
    "heat_map": HEAT,
    "texts": ("tumor 23 %",),
    "arrows": (Arrow((500.0, 100.0), 0.0),),
    "points": np.array([(100, 300)], np.float32),
}


def radii(picture: np.ndarray, center: tuple[float, float], level: int = 60) -> np.ndarray:
    """Return how far from a center each lit pixel is."""
    rows, columns = np.nonzero(picture[..., 1] > level)
    return np.hypot(columns - center[0], rows - center[1])


def test_a_whole_frame_is_fitted_in_the_middle_with_its_proportions() -> None:
    assert np.allclose(fit((640, 360), (1280, 720)), [[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    matrix = fit((1920, 1200), (1280, 720))
    corners = np.array([(-0.5, -0.5, 1), (1919.5, 1199.5, 1)]) @ matrix.T
    assert np.allclose(corners[:, :2], [(63.5, -0.5), (1215.5, 719.5)])


def test_an_outline_is_green_thin_smooth_and_where_it_belongs() -> None:
    picture = draw(overlay(regions=(Region(circle((320, 180), 100)),)), SIZE)
    distances = radii(picture, (640.5, 360.5))
    # Twice as large as in the frame; two pixels wide, and half of one more on either side for smoothness.
    assert 197.5 < distances.min() < 199.8
    assert 200.2 < distances.max() < 203
    assert not picture[..., (0, 2)].any()
    levels = np.unique(picture[..., 1])
    assert levels.max() == 255
    assert len(levels) > 20, "not smooth"
    # Lit all along.
    for angle in np.linspace(0, 2 * np.pi, 360):
        x, y = 640.5 + 200 * np.cos(angle), 360.5 + 200 * np.sin(angle)
        assert picture[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2, 1].max() > 150


def test_holes_have_thinner_lines() -> None:
    picture = draw(overlay(regions=(DISK,)), SIZE, style=Style(line_width_px=6))
    distances = radii(picture, (640.5, 360.5), 120)
    outer, inner = distances[distances > 140], distances[distances < 140]
    assert np.ptp(outer) > 1.5 * np.ptp(inner) > 0
    assert abs(inner.mean() - 80) < 1


def test_lines_are_equally_wide_whatever_the_scale_of_the_warp() -> None:
    small = draw(overlay(regions=(Region(circle((320, 180), 100)),)), SIZE, np.diag([0.5, 0.5, 1.0]))
    large = draw(overlay(regions=(Region(circle((100, 60), 30)),)), SIZE, np.diag([6.0, 6.0, 1.0]))
    widths = [np.ptp(radii(picture, center)) for picture, center in ((small, (160, 90)), (large, (600, 360)))]
    assert abs(widths[0] - widths[1]) < 1


def test_corners_of_coarse_outlines_are_rounded_and_straight_edges_stay() -> None:
    box = np.array([(100, 100), (500, 100), (500, 300), (100, 300)], np.float32)
    picture = draw(overlay(regions=(Region(box),)), FRAME, style=Style(line_width_px=1))[..., 1]
    assert picture[100, 300] == 255
    assert picture[200, 500] == 255
    assert picture[100, 100] == 0
    assert picture[98:104, 98:104].any()


@pytest.mark.parametrize(
    "warp",
    [
        np.array([[0, -1.5, 900], [1.5, 0, -50], [0, 0, 1.0]]),
        np.array([[-1.5, 0.1, 1100], [0, 1.4, 30], [0, 0, 1.0]]),
        np.array([[1.4, 0.1, 100], [0.05, 1.5, 40], [2e-4, 1e-4, 1.0]]),
        -2 * np.array([[1.4, 0.1, 100], [0.05, 1.5, 40], [2e-4, 1e-4, 1.0]]),
    ],
    ids=["rotated", "mirrored", "homography", "homography of another sign"],
)
def test_shapes_and_heat_maps_go_where_the_warp_says(warp: np.ndarray) -> None:
    expected = np.array((320, 180, 1)) @ warp.T
    x, y = expected[:2] / expected[2]
    dot = overlay(regions=(Region(circle((320, 180), 4)),))
    rows, columns = np.nonzero(draw(dot, SIZE, warp)[..., 1])
    assert np.hypot(columns.mean() - x, rows.mean() - y) < 0.6
    heat = np.zeros((45, 80), np.uint8)
    heat[22, 39:41] = 255  # its middle lies at 319.5, 179.5
    rows, columns = np.nonzero(draw(overlay(mode="heatmap", heat_map=heat), SIZE, warp)[..., 1])
    assert np.hypot(columns.mean() - x, rows.mean() - y) < 2.5


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_shows_its_own_and_blank_overlays_show_nothing(mode: str) -> None:
    shown = {"texts": ()} if mode != "text" else {}
    picture = draw(overlay(mode=mode, **{**FULL, **shown}), SIZE)
    line_seen = bool(picture[555:565, 640].any())  # the lower end of the disk
    hole_seen = bool(picture[437:445, 640].any())
    heat_seen = bool(picture[240, 640, 0] > 200)
    arrow_seen = bool(picture[170:230, 920:1010].any())
    text_seen = bool(picture[590:640, 500:800].any())
    point_seen = bool(picture[590:612, 190:212].any())
    lines = mode in ("outline", "animation")
    assert (line_seen, hole_seen, point_seen) == (lines,) * 3
    assert heat_seen == (mode == "heatmap")
    assert arrow_seen == (mode == "arrows")
    assert text_seen == (mode == "text")
    blank = overlay(mode=mode, **FULL, blank_reason="focus")
    assert not draw(blank, SIZE, style=Style(research_note=True)).any()


def test_a_heat_map_is_black_where_nothing_is_and_ends_with_the_frame() -> None:
    everywhere = overlay(mode="heatmap", heat_map=np.full((45, 80), 255, np.uint8))
    warp = np.array([[1.0, 0, 100], [0, 1.0, 50], [0, 0, 1]])
    picture = draw(everywhere, SIZE, warp)
    assert (picture[50:410, 100:740] == (255, 255, 0)).all()
    picture[48:412, 98:742] = 0
    assert not picture.any()
    assert not draw(overlay(mode="heatmap", heat_map=np.full((45, 80), 20, np.uint8)), SIZE).any()


def test_a_heat_map_gets_brighter_with_the_probability() -> None:
    values = np.linspace(30, 255, 80).astype(np.uint8)
    ramp = overlay(mode="heatmap", heat_map=np.tile(values, (45, 1)))
    row = draw(ramp, FRAME)[180].astype(int)
    assert (np.diff(row[:, 1]) >= 0).all()
    assert (np.diff(row[:, 0]) >= 0).all()
    assert row[-10, 0] - row[20, 0] > 200


def test_the_brightness_scales_everything_the_display_adds() -> None:
    for mode in ("outline", "heatmap", "text"):
        shown = overlay(mode=mode, **FULL)
        full, half = (draw(shown, SIZE, style=Style(brightness=light)).astype(int) for light in (1.0, 0.5))
        assert np.abs(full / 2 - half).max() <= 1
        assert full.any()


def test_nothing_is_lit_outside_the_field_of_view() -> None:
    shown = overlay(mode="heatmap", heat_map=np.full((45, 80), 255, np.uint8), texts=("tumor 23 %",))
    style = Style(field_of_view=(0.5, 0.5, 0.8), research_note=True)
    picture = draw(shown, SIZE, style=style)
    distances = radii(picture, (639.5, 359.5), 0)
    assert distances.max() < 0.4 * 720 + 2
    assert picture[360, 640].any()
    moved = draw(shown, SIZE, style=Style(field_of_view=(0.25, 0.5, 0.2)))
    assert radii(moved, (319.5, 359.5), 0).max() < 74


def test_texts_and_note_are_within_the_field_of_view() -> None:
    texts = overlay(mode="text", texts=("tumor 23 %", "largest 1812 um", "score 0.97"))
    for style in (Style(research_note=True), Style(research_note=True, field_of_view=(0.5, 0.5, 0.9))):
        whole = draw(texts, SIZE, style=dataclasses.replace(style, field_of_view=None))
        if style.field_of_view:
            # Nothing is cut off by the circle: as much is lit when it only moves the texts.
            circle_picture = draw(texts, SIZE, style=style)
            assert radii(circle_picture, (639.5, 359.5)).max() < 0.45 * 720 - 3
        rows, columns = np.nonzero(whole[..., 1])
        assert rows.min() > 360
        assert abs((columns.min() + columns.max()) / 2 - 640) < 4


def test_texts_are_upright_for_who_sees_the_frame_upright() -> None:
    texts = overlay(mode="text", texts=("L",))
    upright = draw(texts, SIZE)[..., 1]
    rows, columns = np.nonzero(upright)
    letter = upright[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def cut(warp: np.ndarray) -> np.ndarray:
        picture = draw(texts, SIZE, warp)[..., 1]
        rows, columns = np.nonzero(picture > 30)
        return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def alike(one: np.ndarray, other: np.ndarray) -> bool:
        height, width = (min(one.shape[axis], other.shape[axis]) for axis in (0, 1))
        both = one[:height, :width].ravel(), other[:height, :width].ravel()
        return max(abs(one.shape[0] - other.shape[0]), abs(one.shape[1] - other.shape[1])) <= 2 and (
            np.corrcoef(*both)[0, 1] > 0.8
        )

    mirrored = np.array([[-2.0, 0, 1280], [0, 2, 0], [0, 0, 1]])
    overturned = np.array([[-2.0, 0, 1280], [0, -2, 720], [0, 0, 1]])
    quarter = np.array([[0, -2.0, 1000], [2, 0, 0], [0, 0, 1]])
    assert alike(cut(fit(FRAME, SIZE)), letter)
    assert alike(cut(mirrored), letter[:, ::-1])
    assert alike(cut(overturned), letter[::-1, ::-1])
    assert alike(cut(quarter), np.rot90(letter, -1))
    assert not alike(letter, letter[:, ::-1])
    # An overturned display has its lower side above.
    rows, _ = np.nonzero(draw(texts, SIZE, overturned)[..., 1])
    assert rows.max() < 360


def test_a_letter_that_is_not_there_is_replaced() -> None:
    micro, plain = (draw(overlay(mode="text", texts=(text,)), SIZE) for text in ("812 µm", "812 um"))
    assert np.array_equal(micro, plain)


def test_arrows_are_seen_point_as_the_warp_turns_them_and_differ_outside() -> None:
    mirrored = np.array([[-2.0, 0, 1280], [0, 2, 0], [0, 0, 1]])

    def picture(arrow: Arrow, warp: np.ndarray | None = None, style: Style | None = None) -> np.ndarray:
        return draw(overlay(mode="arrows", arrows=(arrow,)), SIZE, warp, style)[..., 1]

    right = picture(Arrow((320, 180), 0.0, outside=True))
    _, columns = np.nonzero(right)
    assert abs(columns.max() - 640.5) < 3, "the tip"
    assert columns.min() < 590
    left = picture(Arrow((320, 180), 0.0, outside=True), mirrored)
    assert np.nonzero(left)[1].min() > 636
    down = picture(Arrow((320, 180), 90.0, outside=True))
    assert abs(np.nonzero(down)[0].max() - 360.5) < 3
    inside = picture(Arrow((320, 180), 0.0))
    assert (right > 200).sum() > 1.5 * (inside > 200).sum()
    # At the border of the frame or far away, it is moved to where it is seen, whole.
    for tip in ((639.0, 180.0), (5000.0, 180.0)):
        _, columns = np.nonzero(picture(Arrow(tip, 0.0, outside=True)))
        assert columns.max() < 1279
        assert np.ptp(columns) > 50
        style = Style(field_of_view=(0.5, 0.5, 0.8))
        _, columns = np.nonzero(picture(Arrow(tip, 0.0, outside=True), None, style))
        assert columns.max() < 640 + 288
        assert np.ptp(columns) > 50


def test_the_animation_pulses_calmly_and_never_goes_dark() -> None:
    times = np.linspace(0, 2 * PULSE_PERIOD_S, 500)
    light = np.array([pulse(time_s) for time_s in times])
    assert light.max() == pytest.approx(1)
    assert 0.3 < light.min() < 0.6
    # Photosensitive people: no faster than three flashes a second (WCAG 2.2, 2.3.1), and this is far slower.
    assert PULSE_PERIOD_S > 1
    assert pulse(0.3 + PULSE_PERIOD_S) == pytest.approx(pulse(0.3))
    shown = overlay(mode="animation", regions=(DISK,))
    bright, dim = (draw(shown, SIZE, time_s=time_s).max() for time_s in (0.0, PULSE_PERIOD_S / 2))
    assert bright == 255
    assert dim == round(255 * light.min())
    still = overlay(mode="outline", regions=(DISK,))
    assert np.array_equal(draw(still, SIZE, time_s=0.0), draw(still, SIZE, time_s=1.0))


def test_over_a_frame_the_rest_of_the_frame_stays() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (360, 640, 3), np.uint8)
    before = frame.copy()
    picture = drawn_over(frame, overlay(regions=(DISK,)))
    assert np.array_equal(frame, before)
    changed = (picture != frame).any(-1)
    distances = np.hypot(*(np.argwhere(changed) - (180, 320)).T)
    assert ((abs(distances - 100) < 3) | (abs(distances - 40) < 3)).all()
    assert (picture[180, 419:422] == (0, 255, 0)).all(-1).any()


def test_over_a_frame_of_another_size_the_overlay_is_scaled() -> None:
    frame = np.zeros((180, 320, 3), np.uint8)
    distances = radii(drawn_over(frame, overlay(regions=(Region(circle((320, 180), 100)),))), (159.75, 89.75))
    assert abs(distances.mean() - 50) < 1


def test_over_a_frame_the_heat_map_lets_the_tissue_be_seen() -> None:
    frame = np.full((360, 640, 3), 200, np.uint8)
    frame[:, 320:] = 100
    picture = drawn_over(frame, overlay(mode="heatmap", heat_map=HEAT)).astype(int)
    inside = picture[120, (300, 340)]
    assert (inside[0] - inside[1] > 30).all(), "the step of the tissue"
    assert (inside[:, 2] < inside[:, 1]).all()
    assert np.array_equal(picture[300:], frame[300:])


def test_over_a_frame_texts_have_a_darker_ground_and_a_blank_overlay_says_why() -> None:
    frame = np.full((360, 640, 3), 200, np.uint8)
    for shown in (overlay(mode="text", texts=("tumor 23 %",)), overlay(blank_reason="focus", **FULL)):
        picture = drawn_over(frame, shown)
        assert (picture == (0, 255, 0)).all(-1).any()
        assert (picture == 90).all(-1).sum() > 500
        assert np.array_equal(picture[:200], frame[:200])


def test_what_cannot_be_seen_is_left_out_without_an_error() -> None:
    far = np.float32(1e7)
    strange = (
        Region(circle((5000, 5000), 50)),
        Region(np.zeros((0, 2), np.float32)),
        Region(np.array([(1, 1), (2, 2)], np.float32)),
        Region(np.array([(-far, -far), (far, -far), (far, far)], np.float32)),
        Region(np.full((5, 2), np.nan, np.float32)),
    )
    assert not draw(overlay(regions=strange, points=np.full((2, 2), far)), SIZE).any()
    # One that reaches out of the view is cut off.
    picture = draw(overlay(regions=(*strange, Region(circle((640, 180), 100)))), SIZE)
    assert picture[360 - 3 : 360 + 5, 1080 - 5 : 1080 + 5].any()
    # One behind the horizon of a homography is not turned inside out.
    horizon = np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 320, 0, 1]])
    assert not draw(overlay(regions=(Region(circle((500, 180), 50)),)), SIZE, horizon).any()
    assert not draw(overlay(arrows=(Arrow((500, 180), 0.0),), mode="arrows"), SIZE, horizon).any()
    assert not draw(overlay(), SIZE).any()
    assert not draw(overlay(mode="heatmap"), SIZE).any()
    assert not draw(overlay(mode="heatmap", heat_map=np.zeros((0, 0), np.uint8)), SIZE).any()


def test_a_buffer_used_again_keeps_nothing() -> None:
    renderer = Renderer(SIZE)
    shown = [
        overlay(mode=mode, **details)
        for mode in MODES
        for details in (FULL, {}, {**FULL, "blank_reason": "x"})
    ]
    for one in shown:
        assert np.array_equal(renderer.draw(one, None, Style()), draw(one, SIZE))
    first = renderer.draw(shown[0])
    assert renderer.draw(shown[1]) is first


@pytest.mark.parametrize(
    "broken",
    [np.zeros((3, 3)), np.eye(2), np.full((3, 3), np.nan), np.diag([1.0, 0, 1])],
    ids=["zero", "2x2", "nan", "flat"],
)
def test_a_warp_that_is_none_is_refused(broken: np.ndarray) -> None:
    with pytest.raises(LinceiError, match="3x3 matrix"):
        draw(overlay(), SIZE, broken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"color": (0, 0, 256)},
        {"color": (0, 0)},
        {"line_width_px": 0},
        {"brightness": 0.0},
        {"brightness": 1.5},
        {"field_of_view": (0.5, 0.5, 0.0)},
        {"field_of_view": (0.5, float("nan"), 1.0)},
    ],
    ids=str,
)
def test_a_style_that_cannot_be_drawn_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(LinceiError):
        Style(**wrong)


def test_a_frame_or_size_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(LinceiError, match="cannot be drawn"):
        Renderer((0, 10))
    with pytest.raises(LinceiError, match="uint8"):
        drawn_over(np.zeros((10, 10, 3), np.float32), overlay())


def test_a_thousand_outlines_are_drawn_in_a_fraction_of_a_second() -> None:
    rng = np.random.default_rng(0)
    regions = tuple(Region(circle(rng.uniform((0, 0), FRAME), 8, 60)) for _ in range(1000))
    renderer = Renderer((1920, 1080))
    times_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        picture = renderer.draw(overlay(regions=regions))
        times_s.append(time.perf_counter() - began_s)
    assert (picture[..., 1] > 100).sum() > 100_000
    assert min(times_s) < 0.3


def test_without_opencv_a_sentence_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from lincei.errors import LinceiError\n"
        "try: import arm_overlay.rendering\n"
        "except LinceiError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'lincei[arm]'" in done.stdout
