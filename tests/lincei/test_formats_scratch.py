"""What an array in a plain file promises."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lincei.formats.scratch import ScratchArray

SHAPE = (2, 3, 1, 11, 7)
PIXELS = np.random.default_rng(0).random(SHAPE, np.float32)


@pytest.mark.parametrize(("height", "width"), [(4, 7), (4, 3), (11, 7), (1, 1)])
def test_what_is_written_piece_by_piece_reads_back(tmp_path: Path, height: int, width: int) -> None:
    with (tmp_path / "pixels").open("w+b") as file:
        array = ScratchArray(file, SHAPE, np.float32)
        for top in range(0, 11, height):
            for left in range(0, 7, width):
                place = (slice(0, 2), slice(0, 3), slice(0, 1), slice(top, top + height))
                place = (*place, slice(left, left + width))
                array[place] = PIXELS[place]
        np.testing.assert_array_equal(array[...], PIXELS)
        np.testing.assert_array_equal(array[1, 2, 0, 3:9, 2:5], PIXELS[1, 2, 0, 3:9, 2:5])
        np.testing.assert_array_equal(array[:, 1:, :, ::4], PIXELS[:, 1:, :, ::4])
        assert array.dtype == np.float32


def test_what_is_in_the_file_stays_and_the_rest_is_0(tmp_path: Path) -> None:
    path = tmp_path / "pixels"
    with path.open("w+b") as file:
        ScratchArray(file, SHAPE, np.uint16)[0, 1, 0, 2:4] = 9
    with path.open("r+b") as file:
        array = ScratchArray(file, SHAPE, np.uint16)
        assert array[0, 1, 0, 2:4].min() == 9
        assert array[...].sum() == 9 * 2 * 7
    assert path.stat().st_size == 2 * np.prod(SHAPE)


def test_what_is_written_is_with_the_system_at_once(tmp_path: Path) -> None:
    """Who else opens the file sees it: a program that is killed takes nothing with it."""
    with (tmp_path / "pixels").open("w+b") as file:
        ScratchArray(file, SHAPE, np.float32)[0, 0, 0, 0, :2] = 1
        assert (tmp_path / "pixels").read_bytes()[:8] == np.ones(2, np.float32).tobytes()


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self.truncate, self.seek = file.truncate, file.seek

        def write(self, _: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with (tmp_path / "pixels").open("w+b") as file:
        array = ScratchArray(Full(file), SHAPE, np.float32)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="No space left"):
            array[...] = 1


def test_it_is_written_without_steps(tmp_path: Path) -> None:
    with (tmp_path / "pixels").open("w+b") as file, pytest.raises(IndexError, match="without steps"):
        ScratchArray(file, SHAPE, np.float32)[..., ::2] = 1
