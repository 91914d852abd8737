"""Where a pixel of the camera lies on the microdisplay: fitted, judged, stored per objective.

The map takes pixels of the camera to pixels of the display, as `arm_overlay.rendering` wants it for its
warp: x and y, the center of the first pixel is (0, 0), written as a 3x3 matrix of homogeneous coordinates.
It holds shift, rotation, scale, shear and mirroring (affine), and keystone (homography) where that pays.

Camera and display look at the same image that the objective makes, so the map should be the same for all
objectives. It is stored per objective nevertheless: a magnification changer, a second tube lens or a turret
that flexes breaks the rule, and an overlay that lies wrong misleads. So the alignment of one objective may
start another's (`Alignment.seeded`), and what was started so is used only once somebody has confirmed it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arm_overlay.imaging import opencv
from arm_overlay.tumor_model import magnification, objective_of
from lincei.errors import LinceiError, UsageError
from lincei.image import replacing

if TYPE_CHECKING:
    from arm_overlay.displays import Monitor

Points = NDArray[np.float64]

METHODS = ("automatic", "landmarks", "manual")
# A display pixel is what the eye can just tell apart in the eyepiece; more is "off".
GOOD_RESIDUAL_PX = 1.0
# What one cannot place better by eye with a cross.
GOOD_BY_EYE_PX = 8.0

_FORMAT_VERSION = 1
_FEWEST_POINTS = 4
# A homography has two parameters more than an affine map: it needs points left to show that they help.
_FEWEST_FOR_HOMOGRAPHY = 6
_PAYS = 0.9
# Spread across over spread along: below this, points lie on a line as far as a fit is concerned.
_NARROWEST = 0.05
_SMALLEST_SCALE, _LARGEST_SCALE = 0.02, 50.0


class AlignmentError(LinceiError):
    """Camera and display are not aligned, or the alignment there is does not fit them."""


@dataclass(frozen=True)
class Residual:
    """How well an alignment fits what it was fitted to, in pixels of the display.

    Parameters
    ----------
    rms_px, max_px : float
        Root mean square and largest distance between where the points are and where the map puts them.
    left_out_rms_px : float
        The same with each point judged by the fit to all others: what to expect between the points.
    points, outliers : int
        How many points were fitted, and how many were left out because they disagree with the rest.
    covered : float
        The part of the camera's view (0 to 1) that lies between the points; outside, the map extrapolates.
    """

    rms_px: float
    max_px: float
    left_out_rms_px: float
    points: int
    outliers: int = 0
    covered: float = 0.0

    def sentence(self) -> str:
        """Return it in words."""
        text = (
            f"residual {self.rms_px:.2f} px of the display (largest {self.max_px:.2f}, "
            f"{self.left_out_rms_px:.2f} for points left out) over {self.points} points"
        )
        if self.outliers:
            text += f", {self.outliers} more disagreed and were left out"
        return f"{text}; they cover {100 * self.covered:.0f} % of the camera's view"


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where camera pixels lie on a display, for one objective.

    Parameters
    ----------
    matrix : ndarray
        Shape (3, 3), float64: homogeneous camera pixels to display pixels.
    kind : str
        ``"affine"``, ``"homography"``, or ``"similarity"`` (set by hand).
    objective : str
        Such as ``"20x"``.
    camera_size_px, display_size_px : tuple of int
        Width and height.
    display : str
        The display's name.
    method : str
        One of `METHODS`.
    residual : Residual or None
        None where there was nothing to measure it with (set by hand, or started from another objective's).
    camera : str
        The camera's name, for the record.
    created : str
        Date and time, ISO 8601.
    seeded_from : str
        The objective whose alignment it was started from; empty for one of its own.
    confirmed : bool
        False until somebody has seen that it fits; an alignment that is not confirmed is not used.
    """

    matrix: NDArray[np.float64]
    kind: str
    objective: str
    camera_size_px: tuple[int, int]
    display_size_px: tuple[int, int]
    display: str
    method: str
    residual: Residual | None = None
    camera: str = ""
    created: str = ""
    seeded_from: str = ""
    confirmed: bool = True

    def to_display(self, camera_px: ArrayLike) -> Points:
        """Return where camera pixels lie on the display; both of shape (N, 2), x and y."""
        return mapped(self.matrix, camera_px)

    def to_camera(self, display_px: ArrayLike) -> Points:
        """Return which camera pixels see pixels of the display; both of shape (N, 2), x and y."""
        return mapped(np.linalg.inv(self.matrix), display_px)

    def seeded(self, objective: str, scale: float = 1.0) -> Self:
        """Return the start of another objective's alignment, not confirmed yet.

        Parameters
        ----------
        objective : str
            The other objective.
        scale : float
            How much larger the other objective's image is on the display than on the camera, relative to this
            one's: 1 unless the magnification is changed between the two (a magnification changer behind the
            beam splitter). The middle of the camera's view stays where it is.
        """
        objective = objective_name(objective)
        center = self.to_display(_center(self.camera_size_px)[None])[0]
        about = _shift(center) @ np.diag([scale, scale, 1.0]) @ _shift(-center)
        return dataclasses.replace(
            self,
            matrix=about @ self.matrix,
            objective=objective,
            residual=None,
            created=_now(),
            seeded_from=self.objective,
            confirmed=False,
        )

    def describe(self) -> str:
        """Return in a sentence what it is and how good."""
        how = {"automatic": "automatic", "landmarks": "with landmarks", "manual": "by hand"}[self.method]
        start = f"alignment of {self.objective}, {how}, {self.kind}"
        if self.seeded_from:
            start += f", started from {self.seeded_from}"
        if not self.confirmed:
            start += ", not confirmed"
        return f"{start}: {self.residual.sentence()}" if self.residual else f"{start}: residual not measured"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able dict."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["matrix"] = self.matrix.tolist()
        values["residual"] = None if self.residual is None else dataclasses.asdict(self.residual)
        return {"format_version": _FORMAT_VERSION, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the alignment that `to_json` described.

        Raises
        ------
        ValueError
            When something is missing or impossible.
        """
        if values.get("format_version") != _FORMAT_VERSION:
            raise ValueError(f"format version {values.get('format_version')!r}")
        try:
            rest = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            rest["matrix"] = np.array(values["matrix"], dtype=np.float64)
            if values["residual"] is not None:
                rest["residual"] = Residual(**values["residual"])
            for name in ("camera_size_px", "display_size_px"):
                width, height = values[name]
                rest[name] = (int(width), int(height))
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None
        alignment = cls(**rest)
        if alignment.method not in METHODS:
            raise ValueError(f"method {alignment.method!r}")
        check_map(alignment.matrix, alignment.camera_size_px)
        return alignment


def mapped(matrix: NDArray[Any], points: ArrayLike) -> Points:
    """Return points, shape (N, 2), under a map of homogeneous coordinates, shape (3, 3)."""
    at = np.asarray(points, dtype=np.float64).reshape(-1, 2) @ matrix[:, :2].T + matrix[:, 2]
    return at[:, :2] / at[:, 2:]


def fit_alignment(
    camera_px: ArrayLike,
    display_px: ArrayLike,
    *,
    camera_size_px: tuple[int, int],
    tolerance_px: float = 3.0,
) -> tuple[NDArray[np.float64], str, Residual]:
    """Fit the map from camera to display: outliers out by RANSAC, least squares on the rest.

    A homography is taken where it predicts points that were left out at least a tenth better than an affine
    map; fewer parameters wander less between and beyond the points.

    Parameters
    ----------
    camera_px, display_px : array_like
        Shape (N, 2), x and y of the same points, N at least four.
    camera_size_px : tuple of int
        Width and height of the camera's view.
    tolerance_px : float
        Distance on the display from which a point counts as an outlier.

    Returns
    -------
    tuple
        The matrix, shape (3, 3); its kind, ``"affine"`` or ``"homography"``; the residual.

    Raises
    ------
    AlignmentError
        When there are too few points, they lie on a line, or no map fits most of them.
    """
    camera = np.asarray(camera_px, dtype=np.float64).reshape(-1, 2)
    display = np.asarray(display_px, dtype=np.float64).reshape(-1, 2)
    if len(camera) != len(display):
        raise ValueError(f"{len(camera)} points of the camera, {len(display)} of the display")
    _check_spread(camera)
    _check_spread(display)
    agree = _agreeing(camera, display, tolerance_px)
    if agree.sum() < max(_FEWEST_POINTS, len(camera) / 2):
        raise AlignmentError(
            f"the points disagree: no map fits more than {agree.sum()} of {len(camera)}",
            "alignment",
            "See that slide and stage do not move meanwhile, and try again.",
        )
    camera, display = camera[agree], display[agree]
    _check_spread(camera)
    matrix, kind = _affine(camera, display), "affine"
    left_out = _left_out_rms(matrix, camera, display, parameters=6)
    if len(camera) >= _FEWEST_FOR_HOMOGRAPHY:
        keystone = _homography(camera, display)
        if keystone is not None:
            better = _left_out_rms(keystone, camera, display, parameters=8)
            if better < _PAYS * left_out:
                matrix, kind, left_out = keystone, "homography", better
    check_map(matrix, camera_size_px)
    distances = np.linalg.norm(mapped(matrix, camera) - display, axis=1)
    residual = Residual(
        rms_px=float(np.sqrt(np.mean(distances**2))),
        max_px=float(distances.max()),
        left_out_rms_px=left_out,
        points=len(camera),
        outliers=int((~agree).sum()),
        covered=_covered(camera, camera_size_px),
    )
    return matrix, kind, residual


def residual_of(alignment: Alignment, camera_px: ArrayLike, display_px: ArrayLike) -> Residual:
    """Return how far off an alignment is on points it was not fitted to; shapes as in `fit_alignment`.

    Nothing is fitted and nothing left out, so the root mean square stands for the points left out too.
    """
    camera = np.asarray(camera_px, dtype=np.float64).reshape(-1, 2)
    distances = np.linalg.norm(alignment.to_display(camera) - np.asarray(display_px).reshape(-1, 2), axis=1)
    rms = float(np.sqrt(np.mean(distances**2)))
    return Residual(
        rms, float(distances.max()), rms, len(camera), covered=_covered(camera, alignment.camera_size_px)
    )


def manual_matrix(
    camera_size_px: tuple[int, int],
    display_size_px: tuple[int, int],
    *,
    shift_px: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    rotation_deg: float = 0.0,
    mirrored: bool = False,
) -> NDArray[np.float64]:
    """Return the map that is set by hand: shift, scale, rotation and mirroring about the middle of the view.

    Parameters
    ----------
    camera_size_px, display_size_px : tuple of int
        Width and height.
    shift_px : tuple of float
        Where the middle of the camera's view goes, from the middle of the display, x and y in display pixels.
    scale : float
        1 fits the camera's view into the display.
    rotation_deg : float
        Clockwise as seen on the display.
    mirrored : bool
        Whether left and right are swapped, before the rotation.

    Returns
    -------
    ndarray
        Shape (3, 3), camera pixels to display pixels.
    """
    fitting = min(display_size_px[0] / camera_size_px[0], display_size_px[1] / camera_size_px[1])
    angle = math.radians(rotation_deg)
    turn = np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]]
    )
    size = scale * fitting
    stretch = np.diag([-size if mirrored else size, size, 1.0])
    to = _center(display_size_px) + np.asarray(shift_px, dtype=np.float64)
    matrix: NDArray[np.float64] = _shift(to) @ turn @ stretch @ _shift(-_center(camera_size_px))
    return matrix


def check_map(matrix: NDArray[np.float64], camera_size_px: tuple[int, int]) -> None:
    """Refuse a map that no optics makes: flat, folding the view over, or scaling it beyond all reason.

    Raises
    ------
    AlignmentError
        It says so.
    """
    width, height = camera_size_px
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1.0]])
    possible = matrix.shape == (3, 3) and bool(np.isfinite(matrix).all())
    if possible:
        depth = corners @ matrix[2]
        possible = bool((depth > 0).all() or (depth < 0).all())
    if possible:
        # Area of the view on the display, by the shoelace formula.
        at = mapped(matrix, corners[:, :2])
        area = 0.5 * abs(np.dot(at[:, 0], np.roll(at[:, 1], -1)) - np.dot(at[:, 1], np.roll(at[:, 0], -1)))
        scale = math.sqrt(area / (width * height))
        possible = _SMALLEST_SCALE < scale < _LARGEST_SCALE
    if not possible:
        raise AlignmentError(
            "the fitted map is none that optics can make", "alignment", "Align again, with more points."
        )


def objective_name(objective: str) -> str:
    """Return the name under which an objective's things are stored: that of ``"20X"`` is ``"20x"``.

    Raises
    ------
    UsageError
        When this is no objective; it says how they are named.
    """
    try:
        return objective_of(magnification(objective))
    except LinceiError as error:
        raise UsageError(error.what, "--objective", error.what_to_do) from error


def align_command_for(objective: str, *flags: str) -> str:
    """Return the command that aligns for an objective, for a sentence."""
    return " ".join(["lincei arm align --camera ... --display ... --objective", objective, *flags])


def display_key(monitor: Monitor) -> str:
    """Return the name by which a monitor's alignments are stored: its serial number's, or its connector's."""
    told = " ".join(part for part in (monitor.maker, monitor.model, monitor.serial) if part)
    return told if monitor.serial else monitor.name


def alignments_for(monitor: Monitor) -> Callable[[str, tuple[int, int]], NDArray[np.float64]]:
    """Return what the live loop asks for the map of an objective and a camera size.

    What it returns raises `AlignmentError` where there is none that may be used.
    """

    def matrix_of(objective: str, camera_size_px: tuple[int, int]) -> NDArray[np.float64]:
        if not objective:
            raise AlignmentError(
                "the objective is not known, and each has its alignment", "", "Choose the objective."
            )
        return load_alignment(objective, camera_size_px, display_key(monitor), monitor.size_px).matrix

    return matrix_of


def arm_folder() -> Path:
    """Return the folder with what belongs to this microscope: `LINCEI_ARM`, or the user's data folder."""
    import platformdirs

    named = os.environ.get("LINCEI_ARM")
    return (
        Path(named).expanduser() if named else platformdirs.user_data_path("lincei", appauthor=False) / "arm"
    )


def alignment_file(
    objective: str, camera_size_px: tuple[int, int], display: str, display_size_px: tuple[int, int]
) -> Path:
    """Return where an alignment is stored."""
    objective = objective_name(objective)
    sizes = "_".join(f"{width}x{height}" for width, height in (display_size_px, camera_size_px))
    slug = re.sub(r"[^A-Za-z0-9]+", "-", display).strip("-") or "display"
    return arm_folder() / "alignments" / f"{slug}_{sizes}_{objective}.json"


def save_alignment(alignment: Alignment) -> Path:
    """Store an alignment in place of an older one; half of a file is never seen. Return the file.

    Raises
    ------
    AlignmentError
        When the folder cannot be written.
    """
    path = alignment_file(
        alignment.objective, alignment.camera_size_px, alignment.display, alignment.display_size_px
    )
    values = alignment.to_json()
    values["created"] = values["created"] or _now()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise AlignmentError(
            f"the alignment cannot be stored ({error.strerror})",
            str(path),
            "Make the folder writable, or name another in the environment variable LINCEI_ARM.",
        ) from error
    return path


def load_alignment(
    objective: str,
    camera_size_px: tuple[int, int],
    display: str,
    display_size_px: tuple[int, int],
    *,
    unconfirmed: bool = False,
) -> Alignment:
    """Return the stored alignment of an objective, for this camera and this display.

    Parameters
    ----------
    objective : str
        Such as ``"20x"``.
    camera_size_px, display_size_px : tuple of int
        Width and height as they are now.
    display : str
        The display's name.
    unconfirmed : bool
        Whether one that was started from another objective's and not confirmed is returned too.

    Raises
    ------
    AlignmentError
        When there is none, it was made for another camera size or display, it is not confirmed, or its file
        is damaged; the sentence says which, and what to do.
    """
    objective = objective_name(objective)
    path = alignment_file(objective, camera_size_px, display, display_size_px)
    again = f"Run `{align_command_for(objective)}`."
    if not path.is_file():
        raise AlignmentError(
            f"camera and display are not aligned for {objective}{_what_differs(objective)}",
            display,
            again,
        )
    alignment = _read(path)
    wanted = {
        "objective": objective,
        "camera_size_px": tuple(camera_size_px),
        "display": display,
        "display_size_px": tuple(display_size_px),
    }
    for name, value in wanted.items():
        if getattr(alignment, name) != value:
            made_for = _in_words(getattr(alignment, name))
            raise AlignmentError(
                f"the alignment was made for the {_FIELDS[name]} {made_for}, and this is {_in_words(value)}",
                str(path),
                again,
            )
    if not alignment.confirmed and not unconfirmed:
        raise AlignmentError(
            f"the alignment of {objective} was started from that of {alignment.seeded_from} and nobody has "
            "confirmed it yet",
            display,
            f"Run `{align_command_for(objective, '--check')}`.",
        )
    return alignment


_FIELDS = {
    "objective": "objective",
    "camera_size_px": "camera size",
    "display": "display",
    "display_size_px": "display size",
}


def stored_alignments() -> tuple[list[Alignment], list[str]]:
    """Return the alignments that are stored, the newest first, and a sentence for each damaged file."""
    found: list[Alignment] = []
    problems: list[str] = []
    for path in sorted((arm_folder() / "alignments").glob("*.json")):
        try:
            found.append(_read(path))
        except AlignmentError as error:
            problems.append(str(error))
    return sorted(found, key=lambda alignment: alignment.created, reverse=True), problems


def _read(path: Path) -> Alignment:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Alignment.from_json(values)
    except (OSError, ValueError, AttributeError, AlignmentError) as error:
        raise AlignmentError(
            f"the alignment cannot be read ({error})", str(path), "Delete the file and align again."
        ) from None


def _what_differs(objective: str) -> str:
    """Say what an alignment of the same objective was made for, where there is one."""
    found, _ = stored_alignments()
    for alignment in found:
        if alignment.objective == objective:
            return (
                f" with this camera size and display (there is one for a camera of "
                f"{_in_words(alignment.camera_size_px)} pixels and the display {alignment.display} of "
                f"{_in_words(alignment.display_size_px)})"
            )
    return ""


def _in_words(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _center(size_px: tuple[int, int]) -> NDArray[np.float64]:
    return (np.array(size_px, dtype=np.float64) - 1) / 2


def _shift(by: ArrayLike) -> NDArray[np.float64]:
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix


def _check_spread(points: Points) -> None:
    if len(points) < _FEWEST_POINTS:
        raise AlignmentError(
            f"there are {len(points)} points; {_FEWEST_POINTS} are needed",
            "alignment",
            "Set the cross on more landmarks, or let the camera see more of the display.",
        )
    across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if across[0] == 0 or across[1] < _NARROWEST * across[0]:
        raise AlignmentError(
            "the points lie on a line, which does not tell how the image is turned and stretched across it",
            "alignment",
            "Choose points that surround the middle of the view.",
        )


def _agreeing(camera: Points, display: Points, tolerance_px: float) -> NDArray[np.bool_]:
    """Return which pairs agree with one another, by RANSAC; with five or fewer, all."""
    if len(camera) < _FEWEST_FOR_HOMOGRAPHY:
        return np.ones(len(camera), dtype=bool)
    cv2 = opencv()
    _, agree = cv2.findHomography(
        camera.astype(np.float32),
        display.astype(np.float32),
        cv2.RANSAC,
        tolerance_px,
        maxIters=5000,
        confidence=0.9999,
    )
    return np.zeros(len(camera), dtype=bool) if agree is None else agree.ravel().astype(bool)


def _affine(camera: Points, display: Points) -> NDArray[np.float64]:
    """Return the affine map with the least sum of squared distances on the display."""
    middle = camera.mean(axis=0)
    rows = np.column_stack([camera - middle, np.ones(len(camera))])
    solution, *_ = np.linalg.lstsq(rows, display, rcond=None)
    matrix = np.eye(3)
    matrix[:2] = solution.T
    return matrix @ _shift(-middle)


def _homography(camera: Points, display: Points) -> NDArray[np.float64] | None:
    """Return the homography with the least sum of squared distances on the display, where there is one."""
    # OpenCV computes in single precision: about the middle and at the scale of 1 nothing is lost.
    middle, size = camera.mean(axis=0), np.abs(camera - camera.mean(axis=0)).max()
    inward = np.diag([1 / size, 1 / size, 1.0]) @ _shift(-middle)
    to, reach = display.mean(axis=0), np.abs(display - display.mean(axis=0)).max()
    outward = _shift(to) @ np.diag([reach, reach, 1.0])
    found, _ = opencv().findHomography(
        mapped(inward, camera).astype(np.float32),
        mapped(np.linalg.inv(outward), display).astype(np.float32),
        0,
    )
    if found is None:
        return None
    matrix = outward @ found @ inward
    return matrix / matrix[2, 2] if matrix[2, 2] else None


def _left_out_rms(matrix: NDArray[np.float64], camera: Points, display: Points, *, parameters: int) -> float:
    """Return the root mean square distance of points from where a fit to all others would put them.

    By the leverage of each point in the fit's linearization (for an affine map exact): the residual of point
    i when left out is (1 - J_i (J'J)^-1 J_i')^-1 r_i.
    """
    residuals = mapped(matrix, camera) - display
    # In coordinates of about 1 the normal equations are well conditioned; leverages do not depend on it.
    unit = (camera - camera.mean(axis=0)) / np.abs(camera - camera.mean(axis=0)).max()
    ones, zeros = np.ones((len(unit), 1)), np.zeros((len(unit), 3))
    rows = np.hstack([unit, ones])
    jacobian = np.stack([np.hstack([rows, zeros]), np.hstack([zeros, rows])], axis=1)
    if parameters == 8:
        to = (display - display.mean(axis=0)) / np.abs(display - display.mean(axis=0)).max()
        # The derivative by the two numbers that make the keystone, at a small keystone.
        jacobian = np.concatenate([jacobian, -to[:, :, None] * unit[:, None, :]], axis=2)
    flat = jacobian.reshape(-1, parameters)
    inverse = np.linalg.pinv(flat.T @ flat)
    leverage = np.einsum("nip,pq,njq->nij", jacobian, inverse, jacobian)
    left_out = np.linalg.solve(np.eye(2) - leverage + 1e-9 * np.eye(2), residuals[:, :, None])[:, :, 0]
    return float(np.sqrt(np.mean(np.sum(left_out**2, axis=1))))


def _covered(points: Points, size_px: tuple[int, int]) -> float:
    cv2 = opencv()
    hull = cv2.convexHull(points.astype(np.float32))
    return min(1.0, float(cv2.contourArea(hull)) / (size_px[0] * size_px[1]))
