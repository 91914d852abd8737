"""Outlines as files that other programs read and write: QuPath's GeoJSON and ImageJ's ROI sets.

Both count pixels from the image's corner, so that the center of the first pixel is (0.5, 0.5) there and
(0, 0) in a `Region`.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arm_overlay.outline import region_of
from arm_overlay.overlay import Region
from lincei.errors import LinceiError
from lincei.image import readable_errors, replacing

GEOJSON_SUFFIXES = (".geojson", ".json")
ROI_SUFFIXES = (".roi", ".zip")
TUMOR = "Tumor"
# From the image's corner to the center of its first pixel.
_CENTER = 0.5
# QuPath's color of the class Tumor.
_TUMOR_RGB = (200, 0, 0)
_DECIMALS = 2
_SAVE_ROIS = "Save it again from ImageJ: ROI Manager, More, Save."
# The segments of a path in an ImageJ composite selection (java.awt.geom.PathIterator).
_MOVE_TO, _LINE_TO, _CLOSE = 0.0, 1.0, 4.0


@dataclass(frozen=True, eq=False)
class Annotation:
    """A region that somebody outlined.

    Parameters
    ----------
    region : Region
        In pixels of the image; the center of the first pixel is (0, 0). Its score is 0.
    name : str
        Its class in QuPath, such as ``"Tumor"``, or the name of the ROI in ImageJ; may be empty.
    """

    region: Region
    name: str = ""


def read_annotations(path: str | Path) -> list[Annotation]:
    """Read outlines from a GeoJSON or ROI file, by its suffix.

    Parameters
    ----------
    path : str or Path
        ``.geojson`` or ``.json`` as QuPath exports it, ``.roi`` or ``.zip`` as ImageJ saves it.

    Returns
    -------
    list of Annotation
        The areas, in the order of the file; a file of points and lines alone gives none.

    Raises
    ------
    LinceiError
        When there is no such file, it is damaged, or of another kind.
    """
    path = Path(path).expanduser()
    lower = path.name.lower()
    if lower.endswith(GEOJSON_SUFFIXES):
        return read_geojson(path)
    if lower.endswith(ROI_SUFFIXES):
        return read_rois(path)
    raise LinceiError(
        "outlines are not read from this kind of file",
        str(path),
        f"These are: {', '.join(GEOJSON_SUFFIXES)} (QuPath), {', '.join(ROI_SUFFIXES)} (ImageJ).",
    )


def write_geojson(
    path: str | Path,
    regions: Sequence[Region],
    *,
    points: NDArray[Any] | None = None,
    name: str = TUMOR,
    pixel_size_um: float | None = None,
) -> Path:
    """Write regions as annotations that QuPath opens (drag the file onto the open image).

    Parameters
    ----------
    path : str or Path
        The file; an older one is replaced.
    regions : sequence of Region
        In pixels of the full-resolution image.
    points : ndarray, optional
        Shape (N, 2), x and y: written as one annotation of points.
    name : str
        Their class.
    pixel_size_um : float, optional
        Gives each region's area and largest diameter in um as measurements.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    LinceiError
        When it cannot be written.
    """
    path = Path(path)
    features = [
        _feature(
            {"type": "Polygon", "coordinates": [_closed(ring) for ring in _rings(region)]},
            name,
            _measurements(region, pixel_size_um),
        )
        for region in regions
    ]
    if points is not None and len(points):
        features.append(_feature({"type": "MultiPoint", "coordinates": _from_corner(points)}, name, {}))
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_geojson(path: str | Path) -> list[Annotation]:
    """Read polygons from GeoJSON: a collection of features, a list of them, or a single one.

    Raises
    ------
    LinceiError
        When there is no such file, or it is no GeoJSON in pixels.
    """
    path = Path(path)
    with readable_errors(path):
        content = path.read_bytes()
    try:
        told = json.loads(content)
    except ValueError as error:
        raise LinceiError(
            f"it is no GeoJSON ({error})", str(path), "Export it again from QuPath: File, Export objects."
        ) from error
    try:
        found = [
            Annotation(region, _class_of(feature))
            for feature in _features(told)
            for rings in _polygons(feature.get("geometry") or {})
            for region in _even_odd(rings)
        ]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise LinceiError(
            f"it is JSON, but not the GeoJSON of outlines ({error})",
            str(path),
            "Export it again from QuPath: File, Export objects.",
        ) from error
    return found


def write_rois(
    path: str | Path,
    regions: Sequence[Region],
    *,
    points: NDArray[Any] | None = None,
    name: str = TUMOR,
) -> Path:
    """Write regions as a set of ROIs for ImageJ's ROI Manager; one with holes is a composite selection.

    Parameters
    ----------
    path : str or Path
        A ``.zip``; an older one is replaced.
    regions : sequence of Region
        In pixels of the full-resolution image.
    points : ndarray, optional
        Shape (N, 2), x and y: written as one selection of points.
    name : str
        The ROIs are called by it and numbered from 1.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    LinceiError
        When it cannot be written.
    """
    import roifile

    path = Path(path)
    rois = [_roi(roifile, region, f"{name}-{number:04d}") for number, region in enumerate(regions, start=1)]
    if points is not None and len(points):
        roi = roifile.ImagejRoi.frompoints(np.asarray(points, np.float32) + _CENTER, name=f"{name}-points")
        roi.roitype = roifile.ROI_TYPE.POINT
        rois.append(roi)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in rois:
            # A fixed time, so that equal outlines give equal files.
            archive.writestr(zipfile.ZipInfo(f"{roi.name}.roi"), roi.tobytes())
    return path


def read_rois(path: str | Path) -> list[Annotation]:
    """Read areas from an ImageJ ROI (``.roi``) or a set of them (``.zip``).

    Raises
    ------
    LinceiError
        When there is no such file or it is damaged.
    """
    import roifile

    path = Path(path)
    found = []
    with readable_errors(path), _roi_errors(path):
        for name, content in _roi_files(path):
            roi = roifile.ImagejRoi.frombytes(content)
            if roi.roitype in _without_area(roifile) or roi.subtype in (
                roifile.ROI_SUBTYPE.TEXT,
                roifile.ROI_SUBTYPE.ARROW,
                roifile.ROI_SUBTYPE.IMAGE,
            ):
                continue
            try:
                rings = [np.asarray(ring, np.float64) for ring in roi.coordinates(multi=True)]
            except NotImplementedError as error:
                raise LinceiError(
                    f"its selection {roi.name or name} is made of curves, which are not read",
                    str(path),
                    "In ImageJ, turn it into a mask and that into a selection, and save it again.",
                ) from error
            found += [Annotation(region, roi.name or name) for region in _even_odd(rings)]
    return found


def _rings(region: Region) -> tuple[NDArray[Any], ...]:
    return (region.exterior, *region.holes)


def _from_corner(points: NDArray[Any]) -> list[list[float]]:
    """Return points as GeoJSON has them: counted from the corner, to a hundredth of a pixel."""
    rounded: list[list[float]] = np.round(np.asarray(points, np.float64) + _CENTER, _DECIMALS).tolist()
    return rounded


def _closed(ring: NDArray[Any]) -> list[list[float]]:
    points = _from_corner(ring)
    return [*points, points[0]]


def _feature(geometry: dict[str, Any], name: str, measurements: Mapping[str, float]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(_TUMOR_RGB)},
            "measurements": dict(measurements),
        },
    }


def _measurements(region: Region, pixel_size_um: float | None) -> dict[str, float]:
    """Return what QuPath lists for a region."""
    told = {"Mean probability": round(float(region.score), 4)}
    if pixel_size_um is not None:
        told["Area um^2"] = round(float(region.area_px) * pixel_size_um**2, 2)
        told["Largest diameter um"] = round(float(region.diameter_px) * pixel_size_um, 2)
    return told


def _features(told: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the features of a file, however they are put together."""
    if isinstance(told, list):
        for part in told:
            yield from _features(part)
    elif told["type"] == "FeatureCollection":
        yield from _features(told["features"])
    elif told["type"] == "Feature":
        yield told
    else:
        yield {"geometry": told}


def _class_of(feature: Mapping[str, Any]) -> str:
    """Return the class of a feature; empty where it has none."""
    told = (feature.get("properties") or {}).get("classification")
    if isinstance(told, Mapping):
        # Since 0.5 QuPath may write the parts of a class such as "Tumor: Positive" as a list.
        told = told.get("name") or ": ".join(map(str, told.get("names", ())))
    return str(told or "")


def _polygons(geometry: Mapping[str, Any]) -> Iterator[list[NDArray[np.float64]]]:
    """Yield the rings of each polygon of a geometry."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygons(part)
        return
    if kind in ("Polygon", "MultiPolygon"):
        coordinates = geometry["coordinates"]
        for polygon in [coordinates] if kind == "Polygon" else coordinates:
            yield [np.asarray(ring, np.float64).reshape(len(ring), -1)[:, :2] for ring in polygon]


def _even_odd(rings: Sequence[NDArray[np.float64]]) -> Iterator[Region]:
    """Yield the regions of rings counted from the corner: what lies within an odd number of them."""
    import shapely

    for ring in rings:
        if not np.isfinite(ring).all():
            raise ValueError("a corner is not a number")
    rings = [ring for ring in rings if len(np.unique(ring, axis=0)) >= 3]
    if not rings:
        return
    inside = shapely.Polygon(rings[0], rings[1:])
    if not inside.is_valid:  # several exteriors, or drawn by hand across itself
        inside = shapely.MultiPolygon()
        for ring in rings:
            inside = inside.symmetric_difference(shapely.make_valid(shapely.Polygon(ring)))
    for part in shapely.get_parts(inside):
        if part.geom_type == "Polygon" and part.area > 0:
            exterior, *holes = (
                shapely.get_coordinates(ring)[:-1] - _CENTER for ring in (part.exterior, *part.interiors)
            )
            yield region_of(exterior, holes)


def _roi(roifile: Any, region: Region, name: str) -> Any:
    """Return a region as a selection of ImageJ."""
    roi = roifile.ImagejRoi.frompoints(np.asarray(region.exterior, np.float32) + _CENTER, name=name)
    if not region.holes:
        return roi
    path: list[float] = []
    for ring in _rings(region):
        points = np.asarray(ring, np.float32) + _CENTER
        for number, (x, y) in enumerate(points.tolist()):
            path += [_LINE_TO if number else _MOVE_TO, x, y]
        path.append(_CLOSE)
    composite = roifile.ImagejRoi()
    composite.name, composite.roitype, composite.options = name, roifile.ROI_TYPE.RECT, roi.options
    composite.options &= ~roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION  # the path itself is of fractions
    composite.left, composite.top, composite.right, composite.bottom = (
        roi.left,
        roi.top,
        roi.right,
        roi.bottom,
    )
    composite.multi_coordinates = np.asarray(path, np.float32)
    composite.shape_roi_size = len(path)
    return composite


def _roi_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each ROI of a file."""
    if path.suffix.lower() != ".zip":
        yield path.stem, path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".roi")]
        if not names:  # another archive: no outlines would mean no tumor
            raise LinceiError("there is no ROI in this archive", str(path), _SAVE_ROIS)
        for name in names:
            yield Path(name).stem, archive.read(name)


@contextlib.contextmanager
def _roi_errors(path: Path) -> Iterator[None]:
    """Say how a damaged file of ROIs is made again; what is wrong with the disk is said elsewhere."""
    try:
        yield
    except (LinceiError, OSError, MemoryError):
        raise
    except Exception as error:  # roifile and zipfile raise errors of many kinds
        raise LinceiError(
            f"it is damaged, or holds no ROIs of ImageJ ({error})", str(path), _SAVE_ROIS
        ) from error


def _without_area(roifile: Any) -> tuple[Any, ...]:
    kinds = roifile.ROI_TYPE
    return (kinds.LINE, kinds.POLYLINE, kinds.FREELINE, kinds.ANGLE, kinds.POINT, kinds.NOROI)
