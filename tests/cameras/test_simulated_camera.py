"""The simulated slide: what its frames show is what it says it shows, in real time, faults included."""

from __future__ import annotations

import itertools
import threading
import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from arm_overlay.cameras import CameraError, new_camera, simulated
from arm_overlay.cameras.simulated import Episode, SimulatedCamera, SimulatedSettings
from arm_overlay.frames import BAYER_PATTERNS, Frame
from lincei.errors import UsageError
from sample_data.slides import open_slide

# Far longer than anything takes on a busy computer: reached only when it never happens.
LONG_S = 60.0
SMALL = "size=192x128,area_um=120"
COLORS = f"{SMALL},bayer=none,noise=no"


def camera(spec: str) -> SimulatedCamera:
    return SimulatedCamera(spec)


def detail(pixels: NDArray[np.unsignedinteger]) -> float:
    """Return how much fine structure a picture has."""
    return float(cv2.Laplacian(pixels.astype(np.float32), cv2.CV_32F).std())


def moving_fast(of: SimulatedCamera) -> int:
    """Return the number of a frame during which the slide moves as fast as it ever does."""
    return max(range(240), key=lambda number: np.hypot(*of.truth(number).velocity_um_s))


class TestTruth:
    @pytest.mark.parametrize("objective", ["4x", "10x", "20x", "40x"])
    def test_a_frame_shows_the_place_on_the_slide_that_the_truth_says(self, objective: str):
        found = camera(f"{COLORS},objective={objective}")
        truth = found.truth(77)
        part = open_slide("drawn").read(truth.left_um, truth.top_um, (192, 128), truth.pixel_size_um)
        pixels = found.frame_pixels(77)
        assert pixels.shape == part.rgb.shape
        assert np.corrcoef(pixels.ravel(), part.rgb.ravel())[0, 1] > 0.85
        assert (truth.tumor == part.tumor).mean() > 0.995

    def test_the_view_moves_as_fast_as_the_truth_says(self):
        found = camera(f"{COLORS},exposure_ms=0.1,speed=0.3,fps=60")
        number = moving_fast(found)
        before, after = (found.frame_pixels(n).mean(axis=-1).astype(np.float32) for n in (number, number + 1))
        truths = [found.truth(n) for n in (number, number + 1)]
        window = cv2.createHanningWindow((192, 128), cv2.CV_32F)
        (x, y), _ = cv2.phaseCorrelate(before, after, window)
        size_um = truths[0].pixel_size_um
        # The tissue moves against the view.
        assert -x * size_um == pytest.approx(truths[1].left_um - truths[0].left_um, abs=0.3 * size_um)
        assert -y * size_um == pytest.approx(truths[1].top_um - truths[0].top_um, abs=0.3 * size_um)
        velocity = np.mean([truth.velocity_um_s for truth in truths], axis=0)
        moved_um = np.array([truths[1].left_um - truths[0].left_um, truths[1].top_um - truths[0].top_um])
        np.testing.assert_allclose(moved_um * 60, velocity, atol=1.1 * size_um * 60)

    def test_the_slide_rests_and_moves_and_stays_within_its_area(self):
        found = camera(f"{COLORS},speed=0.5")
        truths = [found.truth(number) for number in range(0, 900, 3)]
        speeds = np.array([np.hypot(*truth.velocity_um_s) for truth in truths])
        assert 0.1 < (speeds == 0).mean() < 0.9
        # 0.5 widths a second on the average of a move, half as much again at its fastest.
        width_um = 192 * truths[0].pixel_size_um
        assert 0.5 * width_um < speeds.max() < 0.8 * width_um
        places = np.array([(truth.left_um, truth.top_um) for truth in truths])
        assert np.ptp(places, axis=0).max() <= 122
        assert np.ptp(places, axis=0).min() > 40

    def test_with_speed_0_it_stays_where_it_is(self):
        found = camera(f"{COLORS},speed=0")
        np.testing.assert_array_equal(found.frame_pixels(0), found.frame_pixels(500))

    def test_there_is_tumor_and_other_tissue_to_see(self):
        shares = [
            camera(f"size=640x400,area_um=50,noise=no,objective={o}").truth(0).tumor.mean()
            for o in ("20x", "10x")
        ]
        assert all(0.15 < share < 0.85 for share in shares)

    def test_the_slide_has_no_seams_where_it_was_drawn_in_bands(self, monkeypatch: pytest.MonkeyPatch):
        spec = f"{COLORS},speed=0,fps=11"
        monkeypatch.setattr(simulated, "_BAND_PX", 50)
        in_bands = camera(spec).frame_pixels(0)
        monkeypatch.undo()
        at_once = camera(spec.replace("fps=11", "fps=12")).frame_pixels(0)
        assert np.abs(in_bands.astype(int) - at_once).max() <= 2

    def test_equal_numbers_give_equal_frames_and_noise_differs_between_frames(self):
        found, again, other = camera(SMALL), camera(SMALL), camera(f"{SMALL},seed=1")
        np.testing.assert_array_equal(found.frame_pixels(9), again.frame_pixels(9))
        still = camera(f"{SMALL},speed=0")
        assert (still.frame_pixels(0) != still.frame_pixels(1)).mean() > 0.3
        assert (found.frame_pixels(9) != other.frame_pixels(9)).any()


class TestOptics:
    def test_motion_blurs_and_a_short_exposure_does_not(self):
        sharp, blurry = (camera(f"{COLORS},speed=2,exposure_ms={ms}") for ms in (0.1, 20))
        number = moving_fast(sharp)
        assert detail(blurry.frame_pixels(number)) < 0.6 * detail(sharp.frame_pixels(number))

    def test_an_episode_out_of_focus_is_blurred_and_over_in_time(self):
        found = camera(f"{COLORS},speed=0,defocus=10@1-2,fps=10")
        before, within, after = (detail(found.frame_pixels(number)) for number in (5, 15, 25))
        assert within < 0.5 * before
        assert after == before
        assert [found.truth(number).defocus_um for number in (5, 15, 25)] == [0, 10, 0]

    def test_the_lamp_follows_its_episodes(self):
        found = camera(f"{SMALL},bayer=mono,noise=no,speed=0,light=0.5@1-2,fps=10")
        assert found.frame_pixels(15).mean() == pytest.approx(0.5 * found.frame_pixels(5).mean(), rel=0.02)

    def test_a_low_objective_shows_more_of_the_slide(self):
        sizes = [camera(f"{COLORS},objective={o}").truth(0).pixel_size_um for o in ("4x", "40x")]
        assert sizes == pytest.approx([2.93, 0.293])


class TestObjectives:
    SPEC = f"{COLORS},fps=10,objective=10x,changes=20x@1+40x@3"

    def test_they_change_when_they_should_and_it_is_dark_meanwhile(self):
        found = camera(self.SPEC)
        assert [found.truth(number).objective for number in (0, 9, 14, 29, 34)] == [
            "10x", "10x", "20x", "20x", "40x"
        ]  # fmt: skip
        assert [found.truth(number).turning for number in (9, 10, 13, 14)] == [False, True, True, False]
        assert found.frame_pixels(11).max() < 10 < found.frame_pixels(9).mean()

    @pytest.mark.parametrize(("reports", "expected"), [("yes", ["10x", "20x"]), ("no", ["", ""])])
    def test_frames_report_them_where_the_microscope_does(
        self, reports: str, expected: list[str], opened, frame_where
    ):
        found = opened(f"simulated:{COLORS},fps=10,objective=10x,changes=20x@2.5,reports_objective={reports}")
        first = found.grab(LONG_S)
        later = frame_where(found, lambda frame: frame.number >= 29)
        assert [first.objective, later.objective] == expected
        sizes = [None, None] if reports == "no" else [pytest.approx(1.172), pytest.approx(0.586)]
        assert [first.pixel_size_um, later.pixel_size_um] == sizes


class TestSensor:
    @pytest.mark.parametrize("bayer", BAYER_PATTERNS)
    def test_a_mosaic_holds_the_colors_that_the_camera_would_give_out(self, bayer: str):
        raw = camera(f"{SMALL},speed=0,noise=no,bayer={bayer},bits=12").frame_pixels(0)
        colors = camera(f"{COLORS},speed=0").frame_pixels(0)
        assert raw.shape == (128, 192)
        for place, color in enumerate(bayer):
            found = raw[place // 2 :: 2, place % 2 :: 2]
            expected = colors[place // 2 :: 2, place % 2 :: 2, "RGB".index(color)]
            # The colors have a gamma of 2.2, the mosaic is linear.
            np.testing.assert_allclose(found / 4095, (expected / 255) ** 2.2, atol=0.012)

    @pytest.mark.parametrize("bits", [8, 10, 12, 16])
    def test_a_frame_keeps_to_its_bits(self, bits: int, opened):
        frame = opened(f"simulated:{SMALL},bits={bits},light=3").grab(LONG_S)
        assert frame.bits == bits
        assert frame.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
        assert frame.pixels.max() == 2**bits - 1

    def test_an_unbalanced_camera_sees_glass_green(self):
        balanced, not_balanced = (
            camera(f"{SMALL},speed=0,noise=no,white_balance={answer}").frame_pixels(0)
            for answer in ("yes", "no")
        )
        shares = not_balanced[::2, ::2].mean() / balanced[::2, ::2].mean()
        assert shares == pytest.approx(0.72, abs=0.03)
        np.testing.assert_array_equal(balanced[::2, 1::2], not_balanced[::2, 1::2])

    def test_exposure_gain_and_white_balance_can_be_set(self):
        found = camera(f"{SMALL},speed=0,noise=no,bits=16,light=0.2")
        before = found.frame_pixels(0).astype(float)
        found.set_exposure_ms(10)
        found.set_gain(1.5)
        assert (found.exposure_ms, found.gain) == (10, 1.5)
        assert found.frame_pixels(0).mean() == pytest.approx(3 * before.mean(), rel=0.01)
        found.set_white_balance(1.0, 1.0)
        assert found.frame_pixels(0)[::2, ::2].mean() == pytest.approx(
            3 * 0.72 * before[::2, ::2].mean(), rel=0.01
        )
        with pytest.raises(CameraError, match="exposure"):
            found.set_exposure_ms(0)


class TestRealTime:
    def test_frames_come_no_faster_than_they_should_and_the_newest_wins(self, opened):
        found = opened(f"simulated:{SMALL},fps=20")
        began_s = time.monotonic()
        numbers = [found.grab(LONG_S).number for _ in range(6)]
        assert time.monotonic() - began_s >= 0.05 * (numbers[-1] - numbers[0]) - 0.05
        time.sleep(0.5)
        assert found.grab(LONG_S).number >= numbers[-1] + 9
        assert found.frame_interval_s == pytest.approx(0.05)

    def test_each_frame_is_newer_than_the_last(self, opened):
        found = opened(f"simulated:{SMALL},fps=100")
        began_s = time.monotonic()
        frames: list[Frame] = [found.grab(LONG_S) for _ in range(8)]
        assert all(a.number < b.number and a.time_s < b.time_s for a, b in itertools.pairwise(frames))
        assert began_s <= frames[0].time_s
        assert frames[-1].time_s <= time.monotonic()

    def test_frames_drawn_beforehand_go_forward_and_backward(self, opened):
        found = opened(f"simulated:{SMALL},fps=200,rendered=4,speed=1")
        assert isinstance(found, SimulatedCamera)
        seen: dict[int, list[NDArray[np.unsignedinteger]]] = {}
        places = (0, 1, 2, 3, 2, 1)
        deadline_s = time.monotonic() + LONG_S
        while len(seen) < 4 or min(len(frames) for frames in seen.values()) < 2:
            assert time.monotonic() < deadline_s
            frame = found.grab(LONG_S)
            seen.setdefault(places[frame.number % 6], []).append(frame.pixels)
        for frames in seen.values():
            assert all(pixels is frames[0] for pixels in frames)
        np.testing.assert_array_equal(found.truth(4).tumor, found.truth(2).tumor)
        with pytest.raises(CameraError, match="drawn beforehand"):
            found.set_gain(2)

    def test_closing_from_another_thread_ends_a_waiting_grab(self, opened):
        found = opened(f"simulated:{SMALL},fps=0.1")
        found.grab(LONG_S)
        errors: list[Exception] = []

        def fetch() -> None:
            try:
                found.grab(LONG_S)
            except CameraError as error:
                errors.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        time.sleep(0.1)
        found.close()
        thread.join(LONG_S)
        assert not thread.is_alive()
        assert "closed" in str(errors[0])


class TestFaults:
    def test_an_unplugged_camera_says_so_and_comes_back(self, opened, error_of):
        spec = f"simulated:{SMALL},unplug_after=0.3,unplugged_s=1"
        assert "unplugged" in str(error_of(opened(spec)))
        with pytest.raises(CameraError, match="unplugged"):
            new_camera(spec).open()
        deadline_s = time.monotonic() + LONG_S
        while True:
            try:
                assert opened(spec).grab(LONG_S).number < 9
                return
            except CameraError:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)

    def test_a_stalled_camera_sends_nothing_more(self, opened, error_of):
        found = opened(f"simulated:{SMALL},stall_after=0.3")
        assert "no frame came within 0.2 s" in str(error_of(found, 0.2))
        with pytest.raises(CameraError, match="no frame came"):
            found.grab(0.1)

    @pytest.mark.parametrize("rendered", [0, 3])
    def test_the_size_of_the_frames_changes_under_way(self, rendered: int, opened, frame_where):
        found = opened(f"simulated:{SMALL},resize_after=2,rendered={rendered}")
        assert found.grab(LONG_S).size_px == (192, 128)
        frame = frame_where(found, lambda frame: frame.number >= 60)
        assert frame.size_px == (96, 64)
        assert found.truth(0).tumor.shape == (128, 192)
        assert found.truth(frame.number).tumor.shape == (64, 96)


class TestSpecification:
    def test_it_is_read(self):
        settings = SimulatedSettings.from_spec(
            "slide=drawn:4,objective=10x,changes=40x@9+20x@5.5,fps=24,size=640x480,bayer=GBRG,bits=10,"
            "defocus=6+9@1-2,white_balance=no,rendered=7,unplug_after=3"
        )
        assert settings == SimulatedSettings(
            slide="drawn:4",
            objective="10x",
            changes=((5.5, "20x"), (9.0, "40x")),
            fps=24.0,
            size=(640, 480),
            bayer="GBRG",
            bits=10,
            defocus=(Episode(6.0), Episode(9.0, 1.0, 2.0)),
            white_balance=False,
            rendered=7,
            unplug_after=3.0,
        )
        assert SimulatedSettings.from_spec("") == SimulatedSettings()

    @pytest.mark.parametrize(
        ("spec", "named"),
        [
            ("speeed=1", "'speeed'.*fps.*unplugged_s"),
            ("fps=fast", "fps.*'fast'.*a number"),
            ("fps=0", "fps.*0.1 and 1000"),
            ("size=640", "size.*WIDTHxHEIGHT"),
            ("size=641x480", "641x480.*even"),
            ("bayer=RGBG", "bayer.*RGGB"),
            ("bits=9", "bits.*8, 10, 12"),
            ("objective=63x", "63x.*4x, 10x"),
            ("changes=63x@2", "63x.*4x, 10x"),
            ("changes=10x", "changes.*OBJECTIVE@SECONDS"),
            ("defocus=3@2", "defocus.*VALUE@FROM-TO"),
            ("noise=maybe", "noise.*yes or no"),
            ("seed=1.5", "seed.*whole number"),
            ("seed=-1", "seed.*0 or above"),
            ("rendered=10000,size=1920x1200", "rendered.*21.5 GiB.*at most 1864"),
            ("rendered=3000,size=1920x1200,bits=12,bayer=none", "rendered.*38.6 GiB.*at most 310"),
        ],
    )
    def test_what_is_wrong_is_named_with_what_is_allowed(self, spec: str, named: str):
        with pytest.raises(UsageError, match=named):
            new_camera(f"simulated:{spec}")

    def test_a_slide_that_there_is_not_is_refused_when_it_is_opened(self):
        with pytest.raises(UsageError, match="drawn, drawn:SEED"):
            new_camera("simulated:slide=painted").open()

    def test_it_is_among_the_cameras_there_are(self):
        [listed] = simulated.found()
        assert isinstance(new_camera(listed.spec), SimulatedCamera)
