"""Lazy arrays slice as NumPy arrays do, join, and are cached within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lincei.formats.lazy import DecodedCache, JoinedArray, LazyArray, ReorderedArray

RAMP = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)


class Wrapped(LazyArray):
    """An ndarray read box by box."""

    def __init__(self, array: np.ndarray = RAMP) -> None:
        super().__init__(array.shape, array.dtype)
        self._array = array

    def _read(self, box: tuple[slice, ...]) -> np.ndarray:
        return self._array[box]


def keys(size: int) -> st.SearchStrategy[Any]:
    bounds = st.one_of(st.none(), st.integers(-size - 2, size + 2))
    slices = st.builds(slice, bounds, bounds, st.one_of(st.none(), st.integers(1, 3)))
    return st.one_of(st.integers(-size, size - 1), slices)


@given(st.tuples(*[keys(size) for size in RAMP.shape]), st.integers(0, 5))
def test_a_lazy_array_slices_as_numpy_does(key: tuple[Any, ...], count: int) -> None:
    np.testing.assert_array_equal(Wrapped()[key[:count]], RAMP[key[:count]])
    parted = (*key[:count], Ellipsis, *key[5 - min(count, 5 - count) :]) if count < 3 else (*key[:count], ...)
    np.testing.assert_array_equal(Wrapped()[parted], RAMP[parted])


@pytest.mark.parametrize("key", [slice(None, None, -1), 2, [0, 1], (0,) * 6, (..., ...), "x"])
def test_what_it_cannot_slice_is_an_index_error(key: Any) -> None:
    with pytest.raises(IndexError):
        Wrapped()[key]


def test_it_becomes_an_ndarray_by_reading() -> None:
    np.testing.assert_array_equal(np.asarray(Wrapped()), RAMP)
    assert len(Wrapped()) == 2
    with pytest.raises(ValueError, match="copy"):
        np.asarray(Wrapped(), copy=False)


@pytest.mark.parametrize("axis", range(5))
def test_joined_parts_read_as_their_concatenation(axis: int) -> None:
    parts = [RAMP, np.take(RAMP, [0], axis), RAMP[::1]]
    joined = JoinedArray([Wrapped(part) for part in parts], axis)
    expected = np.concatenate(parts, axis)
    np.testing.assert_array_equal(joined[...], expected)
    key = [slice(None)] * 5
    key[axis] = slice(1, RAMP.shape[axis] + 2)
    np.testing.assert_array_equal(joined[tuple(key)], expected[tuple(key)])


@pytest.mark.parametrize("axes", ["YX", "XY", "ZCYX", "XCTZY"])
def test_reordered_axes_read_as_a_transpose(axes: str) -> None:
    sizes = dict(zip("TCZYX", RAMP.shape, strict=True))
    array = np.arange(np.prod([sizes[a] for a in axes])).reshape([sizes[a] for a in axes])
    view = ReorderedArray(array, axes)
    present = [letter for letter in "TCZYX" if letter in axes]
    expected = array.transpose([axes.index(letter) for letter in present])
    np.testing.assert_array_equal(view[...].squeeze(), expected)
    np.testing.assert_array_equal(view[..., 1:3, 2:5], view[...][..., 1:3, 2:5])


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache = DecodedCache(100)
    decoded: list[str] = []

    def read(name: str, size: int = 40) -> None:
        cache.get(name, lambda: decoded.append(name) or np.zeros(size, np.uint8))

    for name in ("a", "b", "a", "c", "a", "b"):
        read(name)
    assert decoded == ["a", "b", "c", "b"]
    read("large", 51)
    read("large", 51)
    assert decoded[-2:] == ["large", "large"]


def test_a_lazy_array_has_five_axes() -> None:
    with pytest.raises(ValueError, match="five axes"):
        LazyArray((1, 2), np.uint8)
