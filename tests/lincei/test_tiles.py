"""What `lincei.tiles` promises."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lincei.errors import CancelledError
from lincei.image import Image
from lincei.progress import Progress
from lincei.tiles import Tile, mirrored, plan_tiles, read_tile, run_tiles

sizes = st.integers(1, 400)


class TestPlan:
    @settings(max_examples=60, deadline=None)
    @given(sizes, sizes, st.integers(1, 200), st.sampled_from([1, 2, 8, 16, 32]))
    def test_every_pixel_is_in_exactly_one_tile(self, height: int, width: int, tile_px: int, stride: int):
        seen = np.zeros((height, width), int)
        for tile in plan_tiles(height, width, tile_px, stride):
            seen[tile.rows, tile.columns] += 1
        assert (seen == 1).all()

    @settings(max_examples=60, deadline=None)
    @given(sizes, sizes, st.integers(1, 200), st.sampled_from([1, 2, 8, 16, 32]))
    def test_one_size_is_computed_in_strides_and_it_holds_the_tile(
        self, height: int, width: int, tile_px: int, stride: int
    ):
        tiles = plan_tiles(height, width, tile_px, stride)
        assert len({(tile.height, tile.width) for tile in tiles}) == 1
        for tile in tiles:
            for part, side in ((tile.rows, tile.height), (tile.columns, tile.width)):
                assert part.start % stride == 0
                assert side % stride == 0
                assert side <= max(tile_px, stride)
                assert 0 < part.stop - part.start <= side
            computed = np.zeros((tile.height, tile.width))
            assert computed[tile.inside].shape == np.zeros((height, width))[tile.rows, tile.columns].shape

    def test_they_come_row_by_row(self):
        starts = [(tile.rows.start, tile.columns.start) for tile in plan_tiles(100, 200, 64, 16)]
        assert starts == sorted(starts)

    def test_sizes_are_as_equal_as_the_stride_allows(self):
        assert {tile.width for tile in plan_tiles(64, 1040, 1024, 16)} == {528}

    def test_an_image_smaller_than_a_tile_is_one_tile_of_few_strides(self):
        assert plan_tiles(30, 50, 1024, 16) == [Tile(slice(0, 30), slice(0, 50), 32, 64)]


class TestMirroring:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 100))
    def test_it_is_numpys_reflection_however_far_out(self, size: int, before: int, after: int):
        values = np.arange(size)
        index = np.arange(-before, size + after)
        np.testing.assert_array_equal(mirrored(index, size), np.pad(values, (before, after), mode="reflect"))


def stacked(height: int, width: int, seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 60_000, (2, 2, 3, height, width), dtype=np.uint16)
    return Image(pixels)


class TestReading:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 70), st.integers(1, 70), st.integers(8, 64), st.integers(0, 90))
    def test_a_tile_is_that_part_of_the_mirrored_image(
        self, height: int, width: int, tile_px: int, halo: int
    ):
        image = stacked(height, width)
        for tile in plan_tiles(height, width, tile_px, 8):
            pixels = read_tile(image, tile, halo, t=1, channel=1)
            assert pixels.dtype == np.uint16
            pad = halo + 64
            padded = np.pad(image.read()[1, 1], ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
            top, left = tile.rows.start + pad - halo, tile.columns.start + pad - halo
            expected = padded[:, top : top + tile.height + 2 * halo, left : left + tile.width + 2 * halo]
            np.testing.assert_array_equal(pixels, expected)

    def test_only_the_tile_and_its_halo_are_read(self):
        class Watched:
            shape, dtype = (1, 1, 2, 5000, 5000), np.dtype(np.uint8)
            largest = 0

            def __getitem__(self, key: tuple[slice, ...]) -> Any:
                counts = [len(range(*part.indices(n))) for part, n in zip(key, self.shape, strict=True)]
                self.largest = max(self.largest, int(np.prod(counts)))
                return np.zeros(counts, np.uint8)

        data = Watched()
        image = Image(data)
        for tile in plan_tiles(5000, 5000, 1024, 16)[::6]:
            read_tile(image, tile, 40)
        assert 0 < data.largest <= 2 * (1024 + 80) ** 2

    @pytest.mark.parametrize("tile_px", [16, 48, 64, 1024])
    def test_a_filter_gives_the_same_however_the_image_is_cut(self, tile_px: int):
        from scipy import ndimage

        image = stacked(75, 101)
        padded = np.pad(image.read()[0, 0, 0].astype(float), 200, mode="reflect")
        expected = ndimage.uniform_filter(padded, 9)[200:-200, 200:-200]
        result = np.full((75, 101), np.nan)
        for tile in plan_tiles(75, 101, tile_px, 16):
            pixels = read_tile(image, tile, 4)[0].astype(float)
            filtered = ndimage.uniform_filter(pixels, 9)[4:-4, 4:-4]
            result[tile.rows, tile.columns] = filtered[tile.inside]
        np.testing.assert_allclose(result, expected, rtol=1e-9)


class StepError(Exception):
    """What a test's own step raises."""


def raising_at(number: int) -> Callable[..., Any]:
    def step(item: int, *rest: Any) -> Any:
        if item == number:
            raise StepError(f"item {item}")
        return item

    return step


class TestRunning:
    def test_items_are_written_in_their_order_with_what_was_computed_of_them(self):
        written: list[tuple[int, int]] = []
        run_tiles(
            range(50),
            lambda item: item * 10,
            lambda item, pixels: item + pixels,
            lambda item, result: written.append((item, result)),
            stage="labeling",
        )
        assert written == [(item, 11 * item) for item in range(50)]

    def test_nothing_to_do_is_done(self):
        run_tiles([], raising_at(0), raising_at(0), raising_at(0), stage="labeling")

    def test_each_step_has_a_thread_and_computing_is_the_callers(self):
        threads: dict[str, set[int]] = {"read": set(), "compute": set(), "write": set()}

        def noted(name: str) -> Callable[..., None]:
            return lambda *_: threads[name].add(threading.get_ident())

        run_tiles(range(8), noted("read"), noted("compute"), noted("write"), stage="labeling")
        assert threads["compute"] == {threading.get_ident()}
        assert all(len(idents) == 1 for idents in threads.values())
        assert len(set.union(*threads.values())) == 3

    def test_at_most_one_item_is_read_ahead_and_one_written_behind(self):
        lock = threading.Lock()
        read, computed, written = [0], [0], [0]
        held: list[int] = []

        def step(counter: list[int]) -> Callable[..., None]:
            def count(*_: Any) -> None:
                with lock:
                    counter[0] += 1
                    held.append(read[0] - written[0])
                    assert read[0] <= computed[0] + 2
                    assert computed[0] <= written[0] + 2

            return count

        run_tiles(range(60), step(read), step(computed), step(written), stage="labeling")
        assert read == computed == written == [60]
        assert max(held) <= 3, "one read ahead, one computed, one written behind"

    def test_reading_goes_on_while_computing(self):
        second_read = threading.Event()

        def read(item: int) -> None:
            if item == 1:
                second_read.set()

        def compute(item: int, _: None) -> None:
            assert second_read.wait(20), "the next item is read only after this one"

        run_tiles(range(2), read, compute, lambda *_: None, stage="labeling")

    def test_computing_goes_on_while_writing(self):
        second_computed = threading.Event()

        def compute(item: int, _: None) -> None:
            if item == 1:
                second_computed.set()

        def write(item: int, _: None) -> None:
            if item == 0:
                assert second_computed.wait(20), "the next item is computed only after this one is written"

        run_tiles(range(2), lambda _: None, compute, write, stage="labeling")

    @pytest.mark.parametrize("number", [0, 3, 9])
    @pytest.mark.parametrize("step", ["read", "compute", "write"])
    def test_an_error_of_any_step_reaches_the_caller_and_ends_the_work(self, step: str, number: int):
        done: list[int] = []
        steps: dict[str, Callable[..., Any]] = {
            "read": lambda item: item,
            "compute": lambda item, pixels: item,
            "write": lambda item, result: done.append(item),
        }
        steps[step] = raising_at(number)
        with pytest.raises(StepError, match=f"item {number}"):
            run_tiles(range(10), steps["read"], steps["compute"], steps["write"], stage="labeling")
        # What came before is written; what comes after is not.
        assert done == ([] if step == "write" else list(range(number)))

    def test_a_failed_write_stops_the_work_within_two_items(self):
        computed: list[int] = []

        def compute(item: int, _: int) -> int:
            computed.append(item)
            return item

        with pytest.raises(StepError):
            run_tiles(range(100), lambda item: item, compute, raising_at(5), stage="labeling")
        assert max(computed) <= 7

    def test_no_thread_is_left(self):
        before = threading.active_count()
        with pytest.raises(StepError):
            run_tiles(range(9), raising_at(4), lambda *a: a, lambda *_: None, stage="labeling")
        assert threading.active_count() == before

    def test_cancelling_ends_the_work_before_the_next_item(self):
        written: list[int] = []
        computed: list[int] = []
        with pytest.raises(CancelledError):
            run_tiles(
                range(100),
                lambda item: item,
                lambda item, _: computed.append(item),
                lambda item, _: written.append(item),
                stage="labeling",
                cancelled=lambda: len(computed) >= 3,
            )
        assert computed == [0, 1, 2]
        assert written == [0, 1, 2], "what was computed is written whole"

    def test_progress_counts_every_item(self):
        reports: list[Progress] = []
        run_tiles(
            range(4), lambda i: i, lambda i, _: i, lambda *_: None, stage="labeling", progress=reports.append
        )
        assert [(r.stage, r.done, r.total) for r in reports] == [("labeling", n, 4) for n in range(1, 5)]

    @pytest.mark.parametrize("ahead", [2, 3])
    def test_several_items_are_read_at_the_same_time(self, ahead: int):
        together = threading.Barrier(ahead, timeout=20)
        written: list[int] = []

        def read(item: int) -> int:
            together.wait()  # broken, and an error, unless as many threads come here
            return item

        def write(item: int, result: int) -> None:
            written.append(result)

        items = range(4 * ahead)
        run_tiles(items, read, lambda item, pixels: pixels, write, stage="labeling", ahead=ahead)
        assert written == list(items), "and computed and written in their order all the same"

    def test_no_more_items_are_read_ahead_than_was_asked_for(self):
        lock = threading.Lock()
        counts = {"read": 0, "computed": 0}
        most = [0]

        def read(item: int) -> None:
            with lock:
                counts["read"] += 1

        def compute(item: int, _: None) -> None:
            with lock:
                most[0] = max(most[0], counts["read"] - counts["computed"])
                counts["computed"] += 1

        run_tiles(range(50), read, compute, lambda *_: None, stage="labeling", ahead=3)
        assert counts == {"read": 50, "computed": 50}
        assert most[0] <= 1 + 3, "the one that is computed, and three"

    @pytest.mark.parametrize("number", [0, 3, 9])
    def test_an_error_of_one_of_several_readers_comes_in_its_turn(self, number: int):
        done: list[int] = []
        with pytest.raises(StepError, match=f"item {number}"):
            run_tiles(
                range(10),
                raising_at(number),
                lambda item, _: item,
                lambda item, _: done.append(item),
                stage="labeling",
                ahead=4,
            )
        assert done == list(range(number))

    @pytest.mark.parametrize(
        ("slow", "figure"),
        [("read", "waiting_to_read_s"), ("compute", "computing_s"), ("write", "waiting_to_write_s")],
    )
    def test_it_tells_what_was_waited_for(self, slow: str, figure: str):
        def step(name: str) -> Callable[..., None]:
            return lambda *_: time.sleep(0.03 if name == slow else 0)

        times = run_tiles(range(10), step("read"), step("compute"), step("write"), stage="labeling")
        told = dataclasses.asdict(times)
        assert max(told, key=lambda name: told[name]) == figure
        assert told[figure] >= 0.2
