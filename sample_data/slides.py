"""Large slides of stained tissue whose tumor is known: drawn from a seed, or put together from real fields.

For demonstrations, tests and the simulated microscope. A slide is read part by part at any pixel size, so
that it takes little memory however large it is. Command line: ``python -m sample_data.slides OUT`` writes a
picture of a slide and the mask of its tumor.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from lincei.errors import LinceiError, UsageError
from lincei.image import Image, save_image
from sample_data.registry import locate

Mask = NDArray[np.bool_]

GLASS = (244, 242, 245)
# The sets of real fields with a mask of their tumor, and the size of their pixels.
FIELD_SETS_UM = {"he_breast_40x": 0.25, "he_lymph_node_10x": 1.0, "he_oral_20x": 0.5}
# What a slide of real fields is made of where nothing else is asked for.
REAL_FIELDS = (
    "he_breast_40x/1008",
    "he_breast_40x/1015",
    "he_lymph_node_10x/10072",
    "he_lymph_node_10x/10670",
    "he_oral_20x/1009009_r27c10",
)
# Glass between two of them, and how wide a row of them is at most.
_GAP_UM, _ROW_UM = 100.0, 4100.0


@dataclass(frozen=True, eq=False)
class SlidePart:
    """A part of a slide.

    Parameters
    ----------
    rgb : ndarray
        Shape (Y, X, 3), uint8, display values; glass is near white.
    tumor : ndarray
        Shape (Y, X), bool: where tumor is.
    """

    rgb: NDArray[np.uint8]
    tumor: Mask


class Slide(abc.ABC):
    """A slide, read part by part.

    Parameters
    ----------
    name : str
        What it is called.
    size_um : tuple of float
        Width and height.
    """

    def __init__(self, name: str, size_um: tuple[float, float]) -> None:
        self.name = name
        self.size_um = size_um

    def read(
        self, left_um: float, top_um: float, size_px: tuple[int, int], pixel_size_um: float
    ) -> SlidePart:
        """Return a part of the slide; beyond its edges there is glass.

        Parameters
        ----------
        left_um, top_um : float
            Its upper left corner.
        size_px : tuple of int
            Width and height of the result.
        pixel_size_um : float
            Pixel size of the result.
        """
        width, height = size_px
        if width < 1 or height < 1 or pixel_size_um <= 0:
            raise ValueError(f"a part of {width}x{height} pixels of {pixel_size_um:g} um cannot be read")
        rgb = np.empty((height, width, 3), np.uint8)
        tumor = np.empty((height, width), np.bool_)
        self._read_into(rgb, tumor, float(left_um), float(top_um), float(pixel_size_um))
        return SlidePart(rgb, tumor)

    def overview(self, pixel_size_um: float) -> SlidePart:
        """Return the whole slide."""
        width, height = (max(1, round(length / pixel_size_um)) for length in self.size_um)
        return self.read(0, 0, (width, height), pixel_size_um)

    def survey(self, pixel_size_um: float) -> tuple[Mask, Mask]:
        """Return where tissue is on the whole slide, and where tumor is; both of shape (Y, X), bool."""
        part = self.overview(pixel_size_um)
        tissue: Mask = np.any(part.rgb < np.array(GLASS) - 12, axis=-1)
        return tissue, part.tumor

    @abc.abstractmethod
    def _read_into(
        self, rgb: NDArray[np.uint8], tumor: Mask, left_um: float, top_um: float, pixel_size_um: float
    ) -> None:
        """Fill a part that begins at a place."""


@dataclass(frozen=True, eq=False)
class _Field:
    """A real field, and where it lies on the slide; each is joined to its mirror images, right and below."""

    rgb: NDArray[np.uint8]
    tumor: Mask
    pixel_size_um: float
    left_um: float
    top_um: float

    @property
    def width_um(self) -> float:
        return 2 * self.tumor.shape[1] * self.pixel_size_um

    @property
    def height_um(self) -> float:
        return 2 * self.tumor.shape[0] * self.pixel_size_um


class AssembledSlide(Slide):
    """A slide of real fields with glass between them.

    A field is smaller than what a camera sees: it is mirrored to the right and downward, so that each lies
    there four times.

    Parameters
    ----------
    fields : sequence of str
        Set and name, such as ``"he_breast_40x/1008"``; the sets are those of `FIELD_SETS_UM`.

    Raises
    ------
    UsageError
        When there is no such field.
    LinceiError
        When its set is not on this computer.
    """

    def __init__(self, fields: Sequence[str] = REAL_FIELDS) -> None:
        placed: list[_Field] = []
        left = top = bottom = _GAP_UM
        width = 0.0
        for name in fields:
            rgb, tumor, pixel_size_um = _real_field(name)
            field = _Field(rgb, tumor, pixel_size_um, left, top)
            if placed and left + field.width_um > _ROW_UM:
                field = _Field(rgb, tumor, pixel_size_um, _GAP_UM, bottom + _GAP_UM)
                top = field.top_um
            left = field.left_um + field.width_um + _GAP_UM
            bottom = max(bottom, field.top_um + field.height_um)
            width = max(width, left)
            placed.append(field)
        super().__init__(f"real fields: {', '.join(fields)}", (width, bottom + _GAP_UM))
        self._fields = tuple(placed)

    def _read_into(
        self, rgb: NDArray[np.uint8], tumor: Mask, left_um: float, top_um: float, pixel_size_um: float
    ) -> None:
        rgb[...], tumor[...] = GLASS, False
        for field in self._fields:
            # A field and its three mirror images.
            for row in (0, 1):
                for column in (0, 1):
                    _paste(field, row, column, rgb, tumor, (left_um, top_um), pixel_size_um)


def _paste(
    field: _Field,
    row: int,
    column: int,
    rgb: NDArray[np.uint8],
    tumor: Mask,
    corner_um: tuple[float, float],
    pixel_size_um: float,
) -> None:
    """Put a field, or one of its mirror images, into a part of the slide."""
    from PIL import Image as Picture

    starts = (
        field.left_um + column * field.width_um / 2 - corner_um[0],
        field.top_um + row * field.height_um / 2 - corner_um[1],
    )
    lengths = (field.width_um / 2, field.height_um / 2)
    limits = tumor.shape[::-1]
    # Those pixels of the part whose center lies in the field.
    first = [max(0, int(np.ceil(start / pixel_size_um - 0.5))) for start in starts]
    last = [
        min(limit, int(np.ceil((start + length) / pixel_size_um - 0.5)))
        for start, length, limit in zip(starts, lengths, limits, strict=True)
    ]
    if first[0] >= last[0] or first[1] >= last[1]:
        return
    left, top, right, bottom = (
        float(np.clip((edge * pixel_size_um - start) / field.pixel_size_um, 0, size))
        for edges in (first, last)
        for edge, start, size in zip(edges, starts, field.tumor.shape[::-1], strict=True)
    )
    size = (last[0] - first[0], last[1] - first[1])
    place = slice(first[1], last[1]), slice(first[0], last[0])
    turned = slice(None, None, -1 if row else 1), slice(None, None, -1 if column else 1)
    # Means where there are more pixels than are asked for, straight lines between them where there are less.
    way = Picture.Resampling.BOX if pixel_size_um > field.pixel_size_um else Picture.Resampling.BILINEAR
    colors = Picture.fromarray(np.ascontiguousarray(field.rgb[turned]))
    rgb[place] = np.asarray(colors.resize(size, way, box=(left, top, right, bottom)))
    mask = Picture.fromarray(np.ascontiguousarray(field.tumor[turned]).astype(np.uint8) * 255)
    tumor[place] = np.asarray(mask.resize(size, way, box=(left, top, right, bottom))) > 127


def _real_field(name: str) -> tuple[NDArray[np.uint8], Mask, float]:
    """Return the colors, the mask and the pixel size of a real field."""
    import imageio.v3

    set_name, _, field = name.partition("/")
    if set_name not in FIELD_SETS_UM:
        raise UsageError(
            f"there is no real field {name!r}",
            "",
            f"Write one as SET/NAME with a set of: {', '.join(FIELD_SETS_UM)}.",
        )
    folder = locate(set_name, download=False)
    if folder is None:
        raise LinceiError(
            f"the real fields {set_name} are not on this computer",
            "",
            "Set LINCEI_DATA to a folder that has them, or use the drawn slide.",
        )
    paths = [sorted((folder / part).glob(f"{field}.*")) for part in ("images", "masks")]
    if not all(paths):
        names = ", ".join(sorted(path.stem for path in (folder / "images").iterdir()))
        raise UsageError(f"there is no field {field!r} in {set_name}", "", f"There are: {names}.")
    rgb, mask = (np.asarray(imageio.v3.imread(found[0])) for found in paths)
    tumor = (mask if mask.ndim == 2 else mask[..., 0]) > 0
    return rgb[..., :3], tumor, FIELD_SETS_UM[set_name]


def open_slide(name: str = "drawn") -> Slide:
    """Return a slide by its name.

    Parameters
    ----------
    name : str
        ``"drawn"`` or ``"drawn:SEED"``; ``"real"`` or ``"real:SET/NAME+SET/NAME"`` (see `AssembledSlide`).

    Raises
    ------
    UsageError
        When it is none of these.
    LinceiError
        When real fields are asked for that are not on this computer.
    """
    kind, _, rest = name.partition(":")
    if kind == "drawn" and (not rest or rest.isdecimal()):
        from sample_data.drawn_slides import DrawnSlide

        return DrawnSlide(int(rest or 0))
    if kind == "real":
        return AssembledSlide(rest.split("+") if rest else REAL_FIELDS)
    raise UsageError(
        f"there is no simulated slide {name!r}",
        "",
        "Write drawn, drawn:SEED, real or real:SET/NAME+SET/NAME.",
    )


def write_slide(slide: Slide, out: str | Path, *, pixel_size_um: float = 2.0) -> list[Path]:
    """Write a picture of a slide, ``slide.ome.tif``, and its tumor, ``slide_tumor.ome.tif`` (255).

    Parameters
    ----------
    slide : Slide
        What to write.
    out : path-like
        Folder, made where it is not there.
    pixel_size_um : float
        Pixel size of both.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    part = slide.overview(pixel_size_um)
    shared: dict[str, Any] = {"pixel_size_um": pixel_size_um, "source": slide.name}
    picture = Image.from_array(part.rgb, "YXS", name="slide", modality="H&E", **shared)
    mask = Image.from_array(part.tumor.astype(np.uint8) * 255, name="slide_tumor", **shared)
    return [save_image(image, folder / f"{image.name}.ome.tif") for image in (picture, mask)]


if __name__ == "__main__":
    import typer

    def main(
        out: Annotated[Path, typer.Argument(help="Folder to write to.")],
        slide: Annotated[
            str, typer.Option(help="drawn, drawn:SEED, real, or real:SET/NAME+SET/NAME.")
        ] = "drawn",
        pixel_size_um: Annotated[float, typer.Option(help="Pixel size.")] = 2.0,
    ) -> None:
        """Write a picture of a simulated slide and the mask of its tumor."""
        try:
            paths = write_slide(open_slide(slide), out, pixel_size_um=pixel_size_um)
        except (ValueError, LinceiError) as error:
            raise typer.BadParameter(str(error)) from None
        for path in paths:
            print(path)

    typer.run(main)
