"""What rating an image gives: probabilities of each patch, of each plane, and the tables made of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from focusqc.levels import LEVELS, InFocus, Optics, certainty, expected_level, in_focus, pooled

if TYPE_CHECKING:
    import pandas as pd

    from lincei.image import Image

PROBABILITY_COLUMNS = tuple(f"p{k:02d}" for k in range(LEVELS))
_CERTAINTY_COLUMNS = ("certainty_mean", "certainty_max", "certainty_aggregate", "certainty_weighted")
_PLANE_COLUMNS = ("time", "channel", "z")
# Of one row per plane, and of one row per patch; the same everywhere.
IMAGE_COLUMNS = (
    "file",
    "predicted_level",
    "expected_level",
    *_CERTAINTY_COLUMNS,
    *PROBABILITY_COLUMNS,
    "defocus_um",
    "in_focus",
    *_PLANE_COLUMNS,
    "sharpest",
    "patches",
    "note",
)
PATCH_COLUMNS = (
    "file",
    *_PLANE_COLUMNS,
    "row",
    "column",
    "x",
    "y",
    "width",
    "height",
    "predicted_level",
    "expected_level",
    "certainty",
    *PROBABILITY_COLUMNS,
    "defocus_um",
    "in_focus",
)


@dataclass(frozen=True, eq=False)
class PlaneRating:
    """The rating of one plane: one time point, one channel, one z.

    Parameters
    ----------
    time, channel, z : int
        Which plane, counted from 0; ``channel`` is 0 for a color image.
    channel_name : str
        Name of the channel, or its number where it has none.
    y, x : tuple of int
        First rows and first columns of the patches, in pixels of the input.
    patch_px : (int, int)
        Height and width of a patch in pixels of the input: 84, unless the image was resampled or is
        smaller.
    probabilities : ndarray
        Shape (rows, columns, 11), float32: of every patch, rows from the top and columns from the left.
    notes : tuple of str
        What the user should know about this plane ("smaller than a patch", "all saturated").
    """

    time: int
    channel: int
    z: int
    channel_name: str
    y: tuple[int, ...]
    x: tuple[int, ...]
    patch_px: tuple[int, int]
    probabilities: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def image_probabilities(self) -> NDArray[np.float64]:
        """Probabilities of the plane, shape (11,): its patches' averaged with their certainties."""
        return pooled(self.probabilities.reshape(-1, LEVELS))

    @functools.cached_property
    def patch_certainties(self) -> NDArray[np.float64]:
        """Certainty of every patch, shape (rows, columns)."""
        return certainty(self.probabilities)

    @property
    def patch_levels(self) -> NDArray[np.int64]:
        """Most likely level of every patch, shape (rows, columns)."""
        return self.probabilities.argmax(axis=-1).astype(np.int64)

    @property
    def predicted_level(self) -> int:
        """The most likely level, 0 to 10."""
        return int(self.image_probabilities.argmax())

    @property
    def expected_level(self) -> float:
        """The mean of the level's distribution."""
        return float(expected_level(self.image_probabilities))

    @property
    def certainty_mean(self) -> float:
        """Mean of the patches' certainties."""
        return float(self.patch_certainties.mean())

    @property
    def certainty_max(self) -> float:
        """Highest of the patches' certainties."""
        return float(self.patch_certainties.max())

    @property
    def certainty_aggregate(self) -> float:
        """Certainty of the plane's probabilities."""
        return float(certainty(self.image_probabilities))

    @property
    def certainty_weighted(self) -> float:
        """Mean of the patches' certainties with themselves as weights: sum c^2 / sum c."""
        values = self.patch_certainties
        total = float(values.sum())
        return float((values**2).sum() / total) if total > 0 else 0.0

    @property
    def in_focus(self) -> InFocus:
        """Whether the plane counts as in focus: "yes", "no" or "uncertain"."""
        return cast("InFocus", in_focus(self.image_probabilities, self.certainty_weighted).item())


@dataclass(frozen=True, eq=False)
class FocusRating:
    """The rating of an image.

    Parameters
    ----------
    name : str
        Name of the image.
    file : str
        Where it came from; the name where that is unknown.
    planes : tuple of PlaneRating
        One for each time point, channel and z, in this order.
    size_px : (int, int)
        Height and width of the image.
    optics : Optics, optional
        Pixel size and aperture, where both are known.
    pixel_size_um : float, optional
        Of the input, where it is known.
    provenance : mapping
        Model, parameters, versions; JSON-able.
    image : Image, optional
        What was rated; `overlay` draws on it.
    """

    name: str
    file: str
    planes: tuple[PlaneRating, ...]
    size_px: tuple[int, int]
    optics: Optics | None = None
    pixel_size_um: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    image: Image | None = None

    @property
    def sharpest(self) -> dict[tuple[int, int], int]:
        """Best z of each time point and channel of a z-stack: that of the lowest expected level.

        Keys are (time, channel). Planes that say nothing (see `focusqc.levels.in_focus`) are left out; a
        stack of which no plane says anything is not in the result.
        """
        best: dict[tuple[int, int], PlaneRating] = {}
        for plane in self.planes:
            if plane.in_focus == "uncertain":
                continue
            key = (plane.time, plane.channel)
            if key not in best or plane.expected_level < best[key].expected_level:
                best[key] = plane
        return {key: plane.z for key, plane in best.items()}

    def defocus_um(self, level: float) -> float | None:
        """Return the defocus of a level in um.

        None where the optics are unknown, and where they blur more than the level does even in focus.
        """
        return self._defocus_of_all(np.array([[level]]))[0][0]

    def plane(self, *, time: int = 0, channel: int = 0, z: int = 0) -> PlaneRating:
        """Return the rating of one plane.

        Raises
        ------
        KeyError
            When there is no such plane, or it was not rated.
        """
        for plane in self.planes:
            if (plane.time, plane.channel, plane.z) == (time, channel, z):
                return plane
        raise KeyError(f"no plane with time {time}, channel {channel}, z {z} was rated")

    def image_rows(self) -> list[dict[str, Any]]:
        """Return one row per plane, with the columns `IMAGE_COLUMNS`."""
        sharpest = self.sharpest
        is_stack = len({plane.z for plane in self.planes}) > 1
        rows = []
        for plane in self.planes:
            best = sharpest.get((plane.time, plane.channel))
            values: dict[str, Any] = {
                "file": self.file,
                "predicted_level": plane.predicted_level,
                "expected_level": plane.expected_level,
                **{name: getattr(plane, name) for name in _CERTAINTY_COLUMNS},
                **dict(zip(PROBABILITY_COLUMNS, plane.image_probabilities.tolist(), strict=True)),
                "defocus_um": self.defocus_um(plane.expected_level),
                "in_focus": plane.in_focus,
                "time": plane.time,
                "channel": plane.channel_name,
                "z": plane.z,
                "sharpest": ("yes" if plane.z == best else "no") if is_stack and best is not None else "",
                "patches": int(plane.probabilities.shape[0] * plane.probabilities.shape[1]),
                "note": "; ".join(plane.notes),
            }
            rows.append(values)
        return rows

    def patch_rows(self) -> list[dict[str, Any]]:
        """Return one row per patch, with the columns `PATCH_COLUMNS`."""
        return list(self.iter_patch_rows())

    def iter_patch_rows(self) -> Iterator[dict[str, Any]]:
        """Yield what `patch_rows` returns; of a large image it is more than one wants to hold at once."""
        for plane in self.planes:
            levels, certainties = plane.patch_levels, plane.patch_certainties
            expected = expected_level(plane.probabilities)
            focused = in_focus(plane.probabilities)
            defocus_um = self._defocus_of_all(expected)
            for row, y in enumerate(plane.y):
                for column, x in enumerate(plane.x):
                    p = plane.probabilities[row, column]
                    values: dict[str, Any] = {
                        "file": self.file,
                        "time": plane.time,
                        "channel": plane.channel_name,
                        "z": plane.z,
                        "row": row,
                        "column": column,
                        "x": x,
                        "y": y,
                        "width": plane.patch_px[1],
                        "height": plane.patch_px[0],
                        "predicted_level": int(levels[row, column]),
                        "expected_level": float(expected[row, column]),
                        "certainty": float(certainties[row, column]),
                        **dict(zip(PROBABILITY_COLUMNS, p.tolist(), strict=True)),
                        "defocus_um": defocus_um[row][column],
                        "in_focus": str(focused[row, column]),
                    }
                    yield values

    def to_dataframe(self, *, patches: bool = True) -> pd.DataFrame:
        """Return the ratings as a table.

        Parameters
        ----------
        patches : bool
            One row per patch (columns `PATCH_COLUMNS`); otherwise one per plane (`IMAGE_COLUMNS`).
        """
        import pandas as pd

        if patches:
            return pd.DataFrame(self.patch_rows(), columns=list(PATCH_COLUMNS))
        return pd.DataFrame(self.image_rows(), columns=list(IMAGE_COLUMNS))

    def overlay(self, *, time: int = 0, channel: int = 0, z: int | None = None) -> NDArray[np.uint8]:
        """Return a plane with the borders of its patches: hue is the level, lightness the certainty.

        Parameters
        ----------
        time, channel : int
            Which plane.
        z : int, optional
            The sharpest plane when left out (the middle one where none is).

        Returns
        -------
        ndarray of uint8, shape (Y + key, X, 3)
            RGB, with a color key below the image.

        Raises
        ------
        ValueError
            When the rating does not hold the image it was made of.
        """
        from focusqc.overlay import overlay_rgb, plane_pixels

        if self.image is None:
            raise ValueError("this rating does not hold its image; draw with focusqc.overlay.overlay_rgb")
        if z is None:
            zs = sorted({plane.z for plane in self.planes})
            z = self.sharpest.get((time, channel), zs[len(zs) // 2])
        rating = self.plane(time=time, channel=channel, z=z)
        return overlay_rgb(plane_pixels(self.image, rating), rating)

    def probability_image(self) -> Image:
        """Return the probabilities as an image: one channel for each level, as large as what was rated.

        Returns
        -------
        Image
            float32; channel ``c * 11 + k`` holds level k of rated channel c. Where patches overlap the mean
            of theirs; NaN where there is no patch. Lazy: computed where it is read.
        """
        from focusqc.probability_pixels import ProbabilityPixels
        from lincei.image import Image

        times = sorted({plane.time for plane in self.planes})
        channels = sorted({plane.channel for plane in self.planes})
        zs = sorted({plane.z for plane in self.planes})
        height, width = self.size_px
        names = {channels.index(plane.channel): plane.channel_name for plane in self.planes}
        by_position = {
            (times.index(plane.time), channels.index(plane.channel), zs.index(plane.z)): plane
            for plane in self.planes
        }
        data = ProbabilityPixels(by_position, (len(times), len(channels) * LEVELS, len(zs), height, width))
        several = len(channels) > 1
        return Image(
            data,
            name=self.name,
            source=self.file,
            pixel_size_um=self.pixel_size_um,
            channel_names=tuple(
                f"{names[c]} level {k}" if several else f"level {k}"
                for c in range(len(channels))
                for k in range(LEVELS)
            ),
            provenance=dict(self.provenance),
        )

    def _defocus_of_all(self, levels: NDArray[np.float64]) -> list[list[float | None]]:
        """Return the defocus of the patches of a plane in um, row by row; None where it is unknown."""
        if self.optics is None:
            return [[None] * levels.shape[1]] * levels.shape[0]
        # No distance, and yet not sharp: these optics blur more than the level does even in focus.
        found = self.optics.defocus_um(levels)
        hidden = (found == 0) & (levels > 0)
        return [
            [None if unknown else float(value) for value, unknown in zip(*row, strict=True)]
            for row in zip(found, hidden, strict=True)
        ]
