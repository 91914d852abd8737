"""Rating the focus of an image: from its pixels to the probabilities of every patch of every plane."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lincei
from focusqc.levels import LEVELS, Optics
from focusqc.options import AUTOMATIC, FocusOptions
from focusqc.patches import PATCH_PX, PatchGrid, padded, patch_grid
from focusqc.rating import FocusRating, PlaneRating
from lincei.engine import Engine, cached_engine
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image
from lincei.model import Model, find_model
from lincei.options import resolve_options
from lincei.pixel_size import ResampledArray, zoom_factor
from lincei.progress import CancelCheck, Progress, ProgressCallback, report, stop_if_cancelled

FLUORESCENCE_MODEL, HE_MODEL = "focus-fluorescence", "focus-he"
TRANSMITTED = ("phase contrast", "bright field", "DIC")
OUTPUT = "probabilities"
# An engine compiles a network once for each number of patches, and keeps four.
BATCH_SIZES = (256, 64, 16)
# Pixel sizes further apart than this are a slip (nanometers, inches).
LARGEST_FACTOR = 10.0
# A color image is a stained section, not fluorescence, from this median on, as a share of white. Measured:
# 0.42 or more on 107 images of stained sections of four sets; fluorescence is mostly dark.
BRIGHT_BACKGROUND = 0.3
# In fluorescence the bright end lies much farther from the median than the dark end does: 1.8 times or more
# on 81 images, the strongly blurred among them; 1.5 times or less on 40 of phase contrast and bright field.
DARK_BACKGROUND = 1.6
_BRIGHT_NOTE = (
    "its background is not dark: if this is phase contrast, bright field or DIC, the rating means nothing"
)
# Fewer pixels than this at the brightest value of the camera are no news.
SATURATED_SHARE = 0.01
# An image that is enlarged at least so many times has pixels so coarse that they blur by themselves.
_ENLARGED = 2.0
# Resampling leaves an even image even but for its rounding, a few parts in ten million.
_RESAMPLING_ROUNDING = 1e-5

# Rows of patches are read in bands of about so many bytes.
_BAND_BYTES = 16 * 2**20
# The brightest values of cameras of 10, 12 and 14 bits, whose images are stored as uint16.
_CAMERA_TOPS = (1023, 4095, 16383)
_SAMPLE_PX = 2**20
# Phases of the cell cycle, phospho-histone H3 (PH3) and the trans-Golgi network are no transmitted light.
_TRANSMITTED_NAME = re.compile(
    r"""
    bright.?field | phase.?contrast
    | (?<![a-z])
    (?:
        (?<! (?<![a-z]) [sm] [-_ ] ) (?<! (?<![a-z]) g[0-2] [-_ ] ) phase
        | transmi(?:t|ss)\w* | trans (?! .?golgi) | ph[12]? (?! [-_ ]?h?\d) | dic (?! \d) | bf | tl | t.?pmt
    )
    (?![a-z])
    """,
    re.IGNORECASE | re.VERBOSE,
)


def focus(
    image: Image,
    model: str | Path | Model | None = None,
    options: FocusOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> FocusRating:
    """Rate how well an image is focused, patch by patch.

    Parameters
    ----------
    image : Image
        Gray or color, of any size and bit depth. Every plane is rated: of all time points, all z and all
        channels (or those of ``options.channel``); a color image is rated on the plain mean of red, green
        and blue.
    model : str, Path or Model, optional
        Name, folder or `lincei.model.Model`; goes before ``options.model``.
    options : FocusOptions, optional
        The options; single ones can be given as keywords.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    FocusRating
        The probabilities of the 11 levels of defocus for each patch of 84x84 pixels, and what follows from
        them.

    Raises
    ------
    LinceiError
        When this is no `Image`, the image is of a kind that the model does not rate, or a plane holds no
        finite pixel.
    UsageError
        When the options name a channel that there is not, or ask for more patches than pixels.

    Examples
    --------
    >>> from lincei.image import open_image
    >>> rating = focus(open_image("nuclei.tif"))  # doctest: +SKIP
    >>> rating.planes[0].predicted_level, rating.planes[0].in_focus  # doctest: +SKIP
    (1, 'yes')
    """
    settings = resolve_options(FocusOptions, options, overrides)
    _check_is_image(image)
    image = with_stated_modality(image, settings)
    chosen = found_model(model) if model is not None else model_for(image, settings)
    return focus_image(image, chosen, settings, progress=progress, cancelled=cancelled)


def found_model(name: str | Path | Model) -> Model:
    """Return a model that rates focus.

    Raises
    ------
    LinceiError
        When there is none of this name, or it does something else.
    """
    model = name if isinstance(name, Model) else find_model(name, task="focus")
    card = model.card
    if card.task != "focus" or card.total_stride != PATCH_PX or card.outputs[0].name != OUTPUT:
        raise LinceiError(
            "this is not a model that rates the focus of patches",
            f"model {model.name}",
            f"Choose another with --model, such as {FLUORESCENCE_MODEL}.",
        )
    return model


def model_for(
    image: Image, settings: FocusOptions, find: Callable[[str | Path | Model], Model] = found_model
) -> Model:
    """Return the model that an image is rated with.

    Parameters
    ----------
    image : Image
        Its modality, where it is known, and whether a color image's background is bright, decide when
        ``settings.model`` is 'auto'.
    settings : FocusOptions
        Names the model, or leaves it to the image.
    find : callable, optional
        Finds a model by its name.

    Raises
    ------
    LinceiError
        When there is no such model, or the image is of a kind that none rates.
    """
    if settings.model != AUTOMATIC:
        return find(settings.model)
    image = with_stated_modality(image, settings)
    if image.modality == "H&E":
        return find(HE_MODEL)
    if image.rgb and image.modality in (None, "bright field") and _has_bright_background(image):
        return find(HE_MODEL)
    return find(FLUORESCENCE_MODEL)


def open_engine_for(model: Model, settings: FocusOptions) -> Engine:
    """Open a model's network; it stays open for the next call.

    Raises
    ------
    LinceiError
        When no engine works, or the model is damaged.
    """
    return cached_engine(model, engine=settings.engine, threads=settings.threads or None, outputs=(OUTPUT,))


def focus_image(
    image: Image,
    model: Model,
    settings: FocusOptions,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    warn: Callable[[str], None] | None = None,
) -> FocusRating:
    """Rate an image with a model that `model_for` found; see `focus`.

    Parameters
    ----------
    image : Image
        What to rate.
    model : Model
        A model that rates focus.
    settings : FocusOptions
        The options.
    progress, cancelled : callable, optional
        As for `focus`.
    warn : callable, optional
        Hears of what the user should know about the rating; a `LinceiWarning` by default.

    Returns
    -------
    FocusRating
        As `focus` does.
    """
    warn = warn or _warn
    image = with_stated_modality(image, settings)
    _check_modality(image, model)
    channels, left_out = _channels(image, settings)
    if left_out:
        warn(f"{image.name}: {left_out}.")
    factor = _factor(image, model, settings)
    source = image.with_(data=ResampledArray(image.data, factor)) if factor != 1 else image
    at_scale = " at the model's pixel size" if factor != 1 else ""
    try:
        grid = patch_grid(*source.shape[3:], settings.tile_count or None)
    except UsageError as error:
        where = image.source or image.name
        raise UsageError(f"{error.what}{at_scale}", where, error.what_to_do) from None
    times, _, zs = source.shape[:3]
    places = list(itertools.product(range(times), channels, range(zs)))
    rounding = _RESAMPLING_ROUNDING if factor != 1 else 0.0
    planes = [_Plane(source, *place, tops=_tops(image), rounding=rounding) for place in places]
    engine = open_engine_for(model, settings)
    batches = patch_batches(planes, grid, scaled=source.dtype.itemsize > 2)
    probabilities = _run(batches, len(planes) * len(grid), engine, progress, cancelled)

    size = (image.shape[3], image.shape[4])
    y, x, patch_px = _on_input(grid, factor, size)
    common = (
        *(
            (f"smaller than a patch of {PATCH_PX} pixels{at_scale}: padded by mirroring",)
            if grid.padded
            else ()
        ),
        *(
            (f"enlarged {factor:.2g} times: what its coarse pixels blur counts as defocus",)
            if factor >= _ENLARGED
            else ()
        ),
        *((left_out,) if left_out else ()),
    )
    per_plane = probabilities.reshape(len(planes), len(grid.y), len(grid.x), LEVELS)
    pixel_size_um = settings.pixel_size_um or image.pixel_size_um
    if useless := _useless_optics(settings, pixel_size_um):
        warn(useless)
    ratings = [
        PlaneRating(
            time=t,
            channel=c,
            z=z,
            channel_name=_channel_name(image, c),
            y=y,
            x=x,
            patch_px=patch_px,
            probabilities=per_plane[number],
            notes=(*common, *planes[number].notes()),
        )
        for number, (t, c, z) in enumerate(places)
    ]
    if image.modality is None and not image.rgb and model.card.modality == "fluorescence":
        # Noise has no dark background either, but its rating says so itself.
        doubtful = [
            rating.in_focus != "uncertain" and not plane.has_dark_background()
            for rating, plane in zip(ratings, planes, strict=True)
        ]
        if any(doubtful):
            warn(f"{image.name}: {_BRIGHT_NOTE}.")
        ratings = [
            dataclasses.replace(rating, notes=(*rating.notes, _BRIGHT_NOTE)) if doubt else rating
            for rating, doubt in zip(ratings, doubtful, strict=True)
        ]
    return FocusRating(
        name=image.name,
        file=image.source or image.name,
        planes=tuple(ratings),
        size_px=size,
        # A level is a blur in pixels of what was rated.
        optics=Optics.known(
            pixel_size_um / factor if pixel_size_um is not None else None,
            settings.na,
            settings.wavelength_um,
            settings.refractive_index,
        ),
        pixel_size_um=pixel_size_um,
        provenance={
            "note": "Focus rated by a network, on patches of 84x84 pixels. Research use only.",
            "lincei_version": lincei.__version__,
            "model": {"name": model.name, "version": model.card.created, "hash": model.hash},
            # A model may have been given as an object: what was used is named, not what was not asked for.
            "parameters": {**settings.to_json(), "model": model.name},
            "source": image.source or image.name,
            "engine": f"{engine.name} {engine.version} ({engine.precision})",
            "resampled_by": factor,
        },
        image=image,
    )


def _check_is_image(image: object) -> None:
    """Refuse arrays and paths, which say nothing of axes and pixel size."""
    if isinstance(image, Image):
        return
    what = "an array" if isinstance(image, np.ndarray) else repr(image)
    raise LinceiError(
        f"this is {what}, not an image",
        "",
        "From lincei.image, use Image.from_array(pixels) for an array, open_image(path) for a file.",
    )


def _useless_optics(settings: FocusOptions, pixel_size_um: float | None) -> str:
    """Say which options are of no use, because without others they give no defocus in um."""
    if settings.na is not None:
        if pixel_size_um is not None:
            return ""
        return (
            "--na is given, but the pixel size is not known: defocus is not given in um. "
            "Pass --pixel-size-um."
        )
    given = [
        flag
        for flag, value in (
            ("--wavelength-um", settings.wavelength_um),
            ("--refractive-index", settings.refractive_index),
        )
        if value is not None
    ]
    if not given:
        return ""
    verb = "is" if len(given) == 1 else "are"
    return f"{' and '.join(given)} {verb} given without --na: defocus is not given in um. Pass --na."


def with_stated_modality(image: Image, settings: FocusOptions) -> Image:
    """Return the image with the modality that the user states, where one is stated."""
    return image if settings.modality is None else image.with_(modality=settings.modality)


def batch_sizes(total: int) -> list[int]:
    """Return how many patches each run of the network takes, the last run's padding included.

    Examples
    --------
    >>> batch_sizes(300), batch_sizes(63), batch_sizes(20)
    ([256, 64], [64], [16, 16])
    """
    largest, middle, smallest = BATCH_SIZES
    sizes = [largest] * (total // largest)
    rest = total % largest
    sizes += [middle] * (rest // middle)
    rest %= middle
    # Two small runs cost less than one of twice their patches.
    return sizes + ([middle] if rest > middle // 2 else [smallest] * -(-rest // smallest))


def patch_batches(
    planes: Sequence[_Plane], grid: PatchGrid, scaled: bool = False
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield the patches of planes in batches that an engine takes.

    Parameters
    ----------
    planes : sequence of _Plane
        Read band by band, one after the other.
    grid : PatchGrid
        Where patches lie in each of them.
    scaled : bool
        Bring each patch to gray values from 0 to 65535. For types wider than 16 bits, which hold values of
        any magnitude: in float32, which the network computes in, a small contrast on a large offset would be
        lost, and the squares of large values overflow.

    Yields
    ------
    pixels : ndarray
        Shape (N, 1, 84, 84), float32, N one of `BATCH_SIZES`. It is overwritten after the next batch but one.
    count : int
        How many of them are patches; the others are empty.
    """
    sizes = batch_sizes(len(planes) * len(grid))
    dtype = planes[0].image.dtype
    precision = float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)
    shape = (max(sizes), 1, PATCH_PX, PATCH_PX)
    # Filled in turn: one is filled while the engine reads the other.
    buffers = [np.empty(shape, np.float32) for _ in range(min(2, len(sizes)))]
    number = filled = 0
    for rows in itertools.chain.from_iterable(plane.patch_rows(grid) for plane in planes):
        done = 0
        while done < len(grid.x):
            buffer, size = buffers[number % len(buffers)], sizes[number]
            count = min(len(grid.x) - done, size - filled)
            columns = grid.x[done : done + count]
            _cut(rows, columns, buffer[filled : filled + count, 0], scaled, precision)
            done, filled = done + count, filled + count
            if filled == size:
                yield buffer[:size], size
                number, filled = number + 1, 0
    if filled:
        buffer = buffers[number % len(buffers)]
        buffer[filled : sizes[number]] = 0
        yield buffer[: sizes[number]], filled


def _run(
    batches: Iterator[tuple[NDArray[np.float32], int]],
    total: int,
    engine: Engine,
    progress: ProgressCallback | None,
    cancelled: CancelCheck | None,
) -> NDArray[np.float32]:
    """Return the probabilities of all ``total`` patches, shape (total, 11)."""
    result = np.empty((total, LEVELS), np.float32)
    done = 0
    with ThreadPoolExecutor(1) as producer:
        pending = producer.submit(next, batches, None)
        while True:
            stop_if_cancelled(cancelled)
            batch = pending.result()
            if batch is None:
                return result
            pending = producer.submit(next, batches, None)
            pixels, count = batch
            result[done : done + count] = engine.run(pixels)[OUTPUT][:count]
            done += count
            report(progress, Progress("rating", done, total))


@dataclass(eq=False)
class _Plane:
    """One plane while it is read: its pixels, and what the user should know about them."""

    image: Image
    time: int
    channel: int
    z: int
    # The values that a saturated pixel has, and within which share of a value two are taken as equal.
    tops: tuple[float, ...] = ()
    rounding: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    _at_high: int = 0
    _counted: int = 0
    _not_finite: int = 0
    _median: float | None = field(default=None, repr=False)
    _sample: list[NDArray[Any]] = field(default_factory=list, repr=False)

    def patch_rows(self, grid: PatchGrid) -> Iterator[NDArray[Any]]:
        """Yield the 84 rows of pixels of every row of patches; bands of several are read at a time."""
        height, width = self.image.shape[3:]
        samples = 3 if self.image.rgb else 1
        bytes_of_a_row = max(1, width * samples * max(self.image.dtype.itemsize, 2))
        most_px = max(PATCH_PX, _BAND_BYTES // bytes_of_a_row)
        seen, first = 0, 0
        while first < len(grid.y):
            last = first + 1
            while last < len(grid.y) and grid.y[last] + PATCH_PX - grid.y[first] <= most_px:
                last += 1
            start, stop = grid.y[first], min(grid.y[last - 1] + PATCH_PX, height)
            band = self._inspected(self.read(start, stop), max(0, seen - start))
            seen = max(seen, stop)
            if grid.padded:
                band = padded(band)
            for y in grid.y[first:last]:
                yield band[y - start : y - start + PATCH_PX]
            first = last

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows of pixels, shape (stop - start, X); the mean of red, green and blue of a color image."""
        channels = slice(0, 3) if self.image.rgb else slice(self.channel, self.channel + 1)
        pixels = self.image.read(
            {
                "T": slice(self.time, self.time + 1),
                "C": channels,
                "Z": slice(self.z, self.z + 1),
                "Y": slice(start, stop),
            }
        )[0, :, 0]
        if not self.image.rgb:
            return pixels[0]
        wide = np.float64 if pixels.dtype.itemsize > 2 else np.float32
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is found later
            total = np.add(pixels[0], pixels[1], dtype=wide)
            total += pixels[2]
            total /= 3
        return total

    def notes(self) -> tuple[str, ...]:
        """Say what was found while the plane was read."""
        notes = []
        top = self.high in self.tops
        if self.high - self.low <= self.rounding * abs(self.high):
            if top:
                notes.append(f"all saturated: every pixel is {self.high:g}, the brightest there can be")
            elif self.high == 0:
                notes.append("all black: every pixel is 0")
            else:
                notes.append(f"constant: every pixel is {self.high:g}")
        elif top and self._at_high > SATURATED_SHARE * self._counted:
            share = 100 * self._at_high / self._counted
            notes.append(
                f"saturated: {share:.2g} % of the pixels are {self.high:g}, the brightest there can be"
            )
        if self._not_finite:
            pixels = "1 pixel is" if self._not_finite == 1 else f"{self._not_finite} pixels are"
            notes.append(f"{pixels} not a finite number: rated with the median of the others in place")
        return tuple(notes)

    def has_dark_background(self) -> bool:
        """Tell whether gray values lie as in fluorescence: most are dark, few are bright."""
        dark, middle, bright = np.percentile(np.concatenate(self._sample), (0.5, 50, 99.5)).astype(float)
        return bool(bright - middle >= DARK_BACKGROUND * (middle - dark))

    def _inspected(self, band: NDArray[Any], known: int) -> NDArray[Any]:
        """Take note of a band's brightness (but its first ``known`` rows), and mend what is not finite."""
        if band.dtype.kind == "f" and not (np.isfinite(band.min()) and np.isfinite(band.max())):
            finite = np.isfinite(band)
            self._not_finite += int(np.count_nonzero(~finite[known:]))
            if self._median is None:
                self._median = self._finite_median()
            band = np.where(finite, band, band.dtype.type(self._median))
        fresh = band[known:]
        if not fresh.size:
            return band
        self.low = min(self.low, float(fresh.min()))
        brightest = float(fresh.max())
        near = (top for top in self.tops if abs(brightest - top) <= self.rounding * abs(top))
        high = next(near, brightest)
        if high > self.high:
            self.high, self._at_high = high, 0
        if high == self.high and high in self.tops:
            least = high - self.rounding * abs(high)
            self._at_high += int(np.count_nonzero(fresh >= fresh.dtype.type(least)))
        self._counted += fresh.size
        height, width = self.image.shape[3:]
        step = int(np.clip((height * width / _SAMPLE_PX * 16) ** 0.5, 1, 32))
        self._sample.append(fresh[::step, ::step].ravel())
        return band

    def _finite_median(self) -> float:
        """Return the median of the finite pixels, of a sample of about a million where there are more."""
        height, width = self.image.shape[3:]
        step = max(1, int((height * width / _SAMPLE_PX) ** 0.5))
        sample, spare = [], []
        for start in range(0, height, 16 * PATCH_PX):
            band = self.read(start, min(start + 16 * PATCH_PX, height))
            thin = band[::step, ::step]
            sample.append(thin[np.isfinite(thin)])
            spare.append(band[np.isfinite(band)][:1000])
        values = np.concatenate(sample)
        values = values if values.size else np.concatenate(spare)
        if not values.size:
            where = f"time {self.time}, channel {_channel_name(self.image, self.channel)}, z {self.z}"
            raise LinceiError(
                f"no pixel of the plane at {where} is a finite number",
                self.image.source or self.image.name,
                "Leave this plane or channel out, or save the image again from the raw data.",
            )
        return float(np.median(values))


def _tops(image: Image) -> tuple[float, ...]:
    """Return the values that a pixel of an image may have when it is saturated."""
    limits = image.intensity_range
    tops = () if limits is None else (float(limits[1]),)
    return (*tops, *_CAMERA_TOPS) if image.dtype == np.uint16 and not image.rgb else tops


def _cut(
    rows: NDArray[Any], starts: Sequence[int], out: NDArray[np.float32], scaled: bool, precision: float
) -> None:
    """Copy the patches of one row of patches, shape (count, 84, 84).

    What differs by a few times ``precision``, a share of the brightest, is taken as even when it is scaled.
    """
    if not scaled:
        for patch, x in zip(out, starts, strict=True):
            patch[...] = rows[:, x : x + PATCH_PX]
            # So that a constant patch is zeros, whatever rounding its mean is found with.
            patch -= patch[0, 0]
        return
    wide = np.float32 if rows.dtype == np.float32 else np.float64
    patches = np.empty((len(starts), PATCH_PX**2), wide)
    for patch, x in zip(patches, starts, strict=True):
        patch.reshape(PATCH_PX, PATCH_PX)[...] = rows[:, x : x + PATCH_PX]
    low, high = (extreme(axis=1, keepdims=True) for extreme in (patches.min, patches.max))
    # Scaling by a power of two rounds nothing, and then no difference can overflow.
    exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]
    power = np.ldexp(wide(1), -np.clip(exponent, -120, 127))
    patches *= power
    patches -= low * power
    spread = high * power - low * power
    # Resampling leaves up to 4.5 units in the last place where an image is even.
    rounding = 32 * precision
    patches *= np.where(spread > rounding, wide(65535) / np.maximum(spread, rounding), wide(0))
    out[...] = patches.reshape(out.shape)


def _on_input(
    grid: PatchGrid, factor: float, size: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int]]:
    """Return first rows, first columns and size of the patches in pixels of the input."""
    side = round(PATCH_PX / factor)
    patch_px = (min(side, size[0]), min(side, size[1]))

    def starts(places: Sequence[int], length: int, patch: int) -> tuple[int, ...]:
        return tuple(min(round(place / factor), length - patch) for place in places)

    return starts(grid.y, size[0], patch_px[0]), starts(grid.x, size[1], patch_px[1]), patch_px


def _factor(image: Image, model: Model, settings: FocusOptions) -> float:
    """Return by how much the image is enlarged before it is rated."""
    factor = zoom_factor(settings.pixel_size_um, model.card.pixel_size_um)
    if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise LinceiError(
            f"its pixels are {settings.pixel_size_um:g} um, and the model {model.name!r} works at "
            f"{model.card.pixel_size_um:g} um, which is too far apart",
            image.source or image.name,
            "Check --pixel-size-um, which is in micrometers; without it the image is rated as it is.",
        )
    return factor


def _check_modality(image: Image, model: Model) -> None:
    """Refuse an image that is known to be of another kind than the model rates."""
    known, rated = image.modality, model.card.modalities
    if known is None or known in rated:
        return
    if image.rgb and known == "bright field" and "H&E" in rated:
        return  # a stained section is seen in bright field
    where = image.source or image.name
    if known in TRANSMITTED:
        raise _transmitted_error(f"this is a {known} image", where)
    article, other = ("an", HE_MODEL) if known == "H&E" else ("a", FLUORESCENCE_MODEL)
    raise LinceiError(
        f"this is {article} {known} image, and the model {model.name!r} rates {' and '.join(rated)}",
        where,
        f"Choose --model {other}, or pass --modality {rated[0]!r} if the image's own information is wrong.",
    )


def _transmitted_error(what: str, where: str) -> LinceiError:
    return LinceiError(
        f"{what}, and no model rates its focus: there, blur does not just add up to a softer image, as it "
        "does in fluorescence, but changes the pattern",
        where,
        "Rate a fluorescence channel of the same field, or pass --modality fluorescence if this is one.",
    )


def _channels(image: Image, settings: FocusOptions) -> tuple[tuple[int, ...], str]:
    """Return which channels are rated, and a clause that says which are left out although nobody asked."""
    where = image.source or image.name
    if image.rgb:
        if settings.channel:
            raise UsageError(
                "--channel is given, and this is a color image, which is rated as one",
                where,
                "Leave --channel out.",
            )
        return (0,), ""
    names = [_channel_name(image, c) for c in range(image.shape[1])]
    chosen = tuple(_channel_number(wanted, names, where) for wanted in settings.channel)
    chosen = tuple(dict.fromkeys(chosen)) or tuple(range(len(names)))
    if image.modality is not None:
        return chosen, ""
    transmitted = [c for c in chosen if image.channel_names and _TRANSMITTED_NAME.search(names[c])]
    if transmitted and (settings.channel or len(transmitted) == len(chosen)):
        raise _transmitted_error(
            f"the channel {names[transmitted[0]]!r} is transmitted light by its name", where
        )
    if not transmitted:
        return chosen, ""
    listed = ", ".join(names[c] for c in transmitted)
    return tuple(c for c in chosen if c not in transmitted), f"channel {listed} not rated: transmitted light"


def _channel_number(wanted: str, names: Sequence[str], where: str) -> int:
    """Return the channel with a name or number."""
    # A name goes before a number, and its exact spelling before another in upper and lower case.
    for spelled, text in ((list(names), wanted), ([name.casefold() for name in names], wanted.casefold())):
        if text in spelled:
            return spelled.index(text)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    listed = ", ".join(f"{c} ({name})" if name != str(c) else name for c, name in enumerate(names))
    raise UsageError(f"there is no channel {wanted!r}", where, f"There are: {listed}.")


def _channel_name(image: Image, channel: int) -> str:
    """Return a channel's name, or its number where it has none."""
    if image.rgb:
        return "RGB"
    return image.channel_names[channel] if image.channel_names else str(channel)


def _has_bright_background(image: Image) -> bool:
    """Tell whether most of a color image is bright, as a stained section in bright field is."""
    small = image.levels[-1] if image.levels else image
    plane = _Plane(small, small.shape[0] // 2, 0, small.shape[2] // 2)
    height = small.shape[3]
    starts = sorted({round(share * max(0, height - PATCH_PX)) for share in np.linspace(0, 1, 9)})
    bands = [plane.read(start, min(start + PATCH_PX, height))[::4, ::4].ravel() for start in starts]
    values = np.concatenate(bands)
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    limits = image.intensity_range
    low, high = (0.0, float(values.max())) if limits is None else limits
    return float(np.median(values)) - low >= BRIGHT_BACKGROUND * (high - low) > 0


def _warn(text: str) -> None:
    warnings.warn(text, LinceiWarning, stacklevel=4)
