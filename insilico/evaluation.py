"""How far a model's predictions can be trusted: figures and curves on images whose stain is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from insilico.distribution import part_names
from insilico.evaluation_examples import (
    NUCLEI_PX,
    WHOLE_PX,
    Example,
    FoundNuclei,
    Gallery,
    Planes,
    rank,
    reduced,
    reduction,
    worst_window,
)
from insilico.evaluation_scores import Curves, Scores, count_curves
from insilico.label_curve import curved
from insilico.labeling import label_image, models_for, open_engines
from insilico.nuclei import (
    UNKNOWN_DIAMETER_PX,
    Labels,
    count_error,
    find_nuclei,
    match_nuclei,
    object_f1,
)
from insilico.options import EvaluateOptions, LabelOptions
from insilico.pair_files import FoundPair, TrainingPair
from insilico.training import stain_of
from insilico.transmitted_light import transmitted_channel
from lincei.batch import BatchSummary, run_batch
from lincei.errors import LinceiError, LinceiWarning, UsageError
from lincei.image import Image, make_writable
from lincei.metrics import nrmse, pearson_r, psnr, ssim
from lincei.model import Model, find_model
from lincei.model_card import Label
from lincei.normalize import IntensityScaling, not_finite, percentile_scaling
from lincei.options import resolve_options
from lincei.progress import CancelCheck, ProgressCallback

Array = NDArray[np.float32]

# From the gray value that is 0 to the one that is 1: NRMSE, SSIM and PSNR are shares of this.
DATA_RANGE = 1.0
# Everything that has a mean over images, in the order in which it is shown.
METRICS = ("pearson_r", "nrmse", "ssim", "psnr", "crps", "coverage_90", "object_f1", "count_error")


@dataclass(frozen=True)
class LabelFigures:
    """How well one label of one image was predicted, over all its pixels and times; nothing is fitted.

    Prediction (the mean of the distribution) and truth are on the label's normalized scale.

    Parameters
    ----------
    pearson_r : float
        Pearson correlation; NaN where the prediction is constant.
    nrmse : float
        Root-mean-square error as a share of ``data_range``.
    ssim : float
        Structural similarity (`lincei.metrics.ssim`); the mean over times.
    psnr : float
        Peak signal-to-noise ratio in dB, of a peak of ``data_range``; infinite without any error.
    crps : float
        Mean continuous ranked probability score, in units of the scale; 0 is perfect.
    coverage_90 : float
        Share of pixels whose truth lies between the predicted 5 % and 95 % quantiles.
    object_f1 : float, optional
        Of nuclear labels: F1 score of the nuclei, matched at an intersection over union of one half or more
        (`insilico.nuclei`); NaN where there are none in either.
    count_error : float, optional
        Of nuclear labels: by which share of the true number the predicted one is off.
    nuclei_true, nuclei_predicted, nuclei_matched : int, optional
        Of nuclear labels: how many there are.
    gray_value_of_0, gray_value_of_1 : float
        Gray values of the stained image that are 0 and 1 on the scale.
    saturated_share : float
        Share of its pixels that hold the highest gray value that the camera or the file can.
    data_range : float
        `DATA_RANGE`.
    """

    pearson_r: float
    nrmse: float
    ssim: float
    psnr: float
    crps: float
    coverage_90: float
    gray_value_of_0: float
    gray_value_of_1: float
    saturated_share: float
    object_f1: float | None = None
    count_error: float | None = None
    nuclei_true: int | None = None
    nuclei_predicted: int | None = None
    nuclei_matched: int | None = None
    data_range: float = DATA_RANGE


@dataclass(frozen=True)
class ImageFigures:
    """How well an image was predicted.

    Parameters
    ----------
    name, source : str
        Of the transmitted-light image.
    shape : tuple of int
        Its T, C, Z, Y, X.
    pixel_size_um : float or None
        Its pixel size.
    labels : mapping of str to LabelFigures
        By label.
    known_to_model : bool
        Whether an image of its name is among those that the model was made with.
    out_of_distribution : mapping, optional
        How unlike the model's training images it is, as labeling found it; None where the model cannot tell.
    """

    name: str
    source: str
    shape: tuple[int, int, int, int, int]
    pixel_size_um: float | None
    labels: Mapping[str, LabelFigures]
    known_to_model: bool
    out_of_distribution: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation.

    Parameters
    ----------
    model : Model
        The model.
    labels : tuple of Label
        Those evaluated, in the model's order.
    batch : BatchSummary of ImageFigures
        The figures of each image, and what failed.
    curves : mapping of str to Curves
        By label, over all images.
    parameters : mapping
        The options.
    engine : str
        What ran the network.
    cautions : tuple of str
        What the reader should know about the images.
    """

    model: Model
    labels: tuple[Label, ...]
    batch: BatchSummary[ImageFigures]
    curves: Mapping[str, Curves]
    parameters: Mapping[str, Any]
    engine: str
    cautions: tuple[str, ...]

    @property
    def images(self) -> tuple[ImageFigures, ...]:
        """The figures of the images that were done."""
        return self.batch.done

    def of(self, label: str) -> list[tuple[ImageFigures, LabelFigures]]:
        """Return a label's figures in each image that has it, the worst correlation first."""
        found = [(image, image.labels[label]) for image in self.images if label in image.labels]
        return sorted(found, key=lambda pair: rank(pair[1]))

    def means(self, label: str) -> dict[str, tuple[float, int]]:
        """Return each metric's mean over the images where it is defined, and how many those are."""
        means = {}
        for metric in METRICS:
            values = [getattr(figures, metric) for _, figures in self.of(label)]
            defined = [value for value in values if value is not None and math.isfinite(value)]
            if defined:
                means[metric] = (math.fsum(defined) / len(defined), len(defined))
        return means


def evaluate(
    pairs: Sequence[TrainingPair | FoundPair],
    model: str | Path | Model | None = None,
    options: EvaluateOptions | None = None,
    *,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    **overrides: Any,
) -> Evaluation:
    """Compare a model's predictions with stained images of the same fields.

    Parameters
    ----------
    pairs : sequence of TrainingPair or FoundPair
        Transmitted light, and stained images by the names of the model's labels.
    model : str, Path or Model, optional
        Name, folder or `lincei.model.Model`; goes before ``options.model``.
    options : EvaluateOptions, optional
        The options; single ones can be given as keywords.
    out : str or Path, optional
        Folder for ``metrics.json``, ``metrics.csv`` and ``report.html``; made when missing. Nothing is
        written when no image could be evaluated.
    progress, cancelled : callable, optional
        See `lincei.progress`. When it is cancelled, what was done by then is reported.

    Returns
    -------
    Evaluation
        A pair that fails (files that cannot be read, sizes that differ, pixels that are no numbers) is
        listed in ``batch.failures``; the others go on.

    Raises
    ------
    UsageError
        Before any work: nothing to evaluate, or a label that the model does not predict.
    LinceiError
        Before any work: no such model, one without a distribution, a folder that cannot be written.

    Notes
    -----
    The truth is scaled as in training: by the card's percentiles of that same stained image or, with another
    ``label_scaling``, of all stained images of the group or label. Nothing is fitted to the prediction.
    Memory grows with the area of an image: 10,000 x 10,000 pixels need about 12 GB.
    """
    settings = resolve_options(EvaluateOptions, options, overrides)
    found = model if isinstance(model, Model) else find_model(model or settings.model, task="label")
    labels = _checked_labels(pairs, found, settings)
    folder = None if out is None else Path(out).expanduser()
    if folder is not None:
        make_writable(folder)
    models_for(_labeling_options(settings, found), [found])
    [engine] = open_engines([found], _labeling_options(settings, found))
    together = _common_scalings(pairs, labels)
    gallery = Gallery(len(pairs), len(labels))
    curves: dict[str, Curves] = {}
    cautions: dict[str, None] = {}  # a set that keeps its order

    def warn(text: str) -> None:
        if text not in cautions:
            cautions[text] = None
            warnings.warn(text, LinceiWarning, stacklevel=3)

    known = [name for name in map(_name, pairs) if is_known(found, name)]
    if known:
        warn(_known_sentence(known, len(pairs), found))

    def job(
        item: tuple[int, TrainingPair | FoundPair],
        /,
        *,
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
    ) -> ImageFigures:
        index, pair = item
        opened = pair.open() if isinstance(pair, FoundPair) else pair
        field = _TrueField.read(opened, labels, together, settings)
        scores, unlike = field.scores(found, settings, warn, progress, cancelled)
        image, names = field.image, [item.name for item in field.labels]
        nuclei = [
            field.nuclei(scores.mean[:, i], i, settings) if _is_nuclear(name, settings) else None
            for i, name in enumerate(names)
        ]
        figures = {name: field.figures(scores, i, nuclei[i]) for i, name in enumerate(names)}
        for i, name in enumerate(names):
            pixels = count_curves(scores, i)
            curves[name] = curves[name] + pixels if name in curves else pixels
            gallery.add(index, name, field.example(scores, i, figures[name], nuclei[i]))
        return ImageFigures(
            name=image.name,
            source=image.source,
            shape=image.shape,
            pixel_size_um=image.pixel_size_um,
            labels=figures,
            known_to_model=image.name in known,
            out_of_distribution=unlike,
        )

    batch = run_batch(
        list(enumerate(pairs)),
        job,
        describe=lambda item: _name(item[1]),
        progress=progress,
        cancelled=cancelled,
    )
    evaluation = Evaluation(
        found,
        tuple(item for item in labels if item.name in curves),
        batch,
        curves,
        {**settings.to_json(), "model": found.name},
        f"{engine.name} {engine.version} ({engine.precision})",
        tuple(cautions),
    )
    if folder is not None and batch.done:
        from insilico.evaluation_page import write_evaluation

        write_evaluation(evaluation, gallery.examples, folder)
    return evaluation


def truth_scaling(label: Label, *stains: Image) -> IntensityScaling:
    """Return the scaling of stained images to a label's normalized scale, by the card's percentiles.

    Parameters
    ----------
    label : Label
        Of the model's card.
    *stains : Image
        One channel each; of several images, all are scaled alike.
    """
    return percentile_scaling(
        *stains, background=label.background_percentile or 0.0, bright=label.bright_percentile or 100.0
    )


def scaled_truth(stain: Image, model: Model, index: int) -> Array:
    """Return a stained image on its label's normalized scale; nothing is fitted.

    Parameters
    ----------
    stain : Image
        One channel; a stack is projected to its maximum.
    model : Model
        The model whose card names the percentiles.
    index : int
        Which of its labels.

    Returns
    -------
    ndarray
        Shape (Y, X), float32.
    """
    scaling = truth_scaling(model.card.labels[index], stain)
    return curved(scaling.apply(stain.read()[0, 0].max(axis=0)), model.card.labels[index].curve)


@dataclass(frozen=True)
class _LabelingOptions(LabelOptions):
    """Options of labeling whose statistics may be the parts of a distribution, too."""

    statistics: tuple[str, ...] = ()


def _labeling_options(
    settings: EvaluateOptions, model: Model, labels: Sequence[Label] = ()
) -> _LabelingOptions:
    shared = {
        name: getattr(settings, name)
        for name in ("pixel_size_um", "z_step_um", "modality", "channel", "engine", "tile_px", "threads")
    }
    parts = part_names(int(model.card.distribution.get("components", 1)))
    return _LabelingOptions(
        model=(model.name,),
        labels=tuple(label.name for label in labels),
        statistics=("mean", "sd", *parts),
        **shared,
    )


@dataclass(frozen=True, eq=False)
class _Nuclei:
    """Nuclei of one label, of each time: the true ones, the predicted ones, and what matched."""

    true: list[Labels]
    predicted: list[Labels]
    pairs: list[tuple[tuple[int, int], ...]]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many there are in all times: true, predicted, matched."""
        return (
            sum(int(plane.max()) for plane in self.true),
            sum(int(plane.max()) for plane in self.predicted),
            sum(map(len, self.pairs)),
        )


@dataclass(frozen=True, eq=False)
class _TrueField:
    """An image with its truth, shape (T, labels, Y, X), on the labels' normalized scales."""

    image: Image
    labels: tuple[Label, ...]
    truth: Array
    scalings: tuple[IntensityScaling, ...]
    saturated: tuple[float, ...]
    light: Array
    pixel_size_um: float | None

    @classmethod
    def read(
        cls,
        pair: TrainingPair,
        labels: Sequence[Label],
        together: Mapping[tuple[str, ...], IntensityScaling],
        settings: EvaluateOptions,
    ) -> _TrueField:
        """Read and check the stained images of a pair."""
        image = pair.image
        own = tuple(label for label in labels if label.name in pair.labels)
        truth = np.empty((image.shape[0], len(own), *image.shape[3:]), np.float32)
        scalings, saturated = [], []
        for i, label in enumerate(own):
            stain = pair.labels[label.name]
            _check_stain(stain, label.name, image)
            scaling = together.get(_scaled_with(pair, label.name)) or truth_scaling(label, stain)
            full = 0
            top = _highest_gray_value(stain)
            for t in range(image.shape[0]):
                plane = stain.read({"T": slice(t, t + 1)})[0, 0].max(axis=0)
                if not np.isfinite(plane).all():
                    raise not_finite(stain, 0)
                truth[t, i] = curved(scaling.apply(plane), label.curve)
                full += 0 if top is None else int(np.count_nonzero(plane >= top))
            scalings.append(scaling)
            saturated.append(full / (truth[:, i].size))
        channel = transmitted_channel(image, settings.channel)
        t, z = image.shape[0] // 2, image.shape[2] // 2
        region = {"T": slice(t, t + 1), "C": slice(channel, channel + 1), "Z": slice(z, z + 1)}
        sizes = (
            settings.pixel_size_um,
            image.pixel_size_um,
            *(pair.labels[item.name].pixel_size_um for item in own),
        )
        return cls(
            image,
            own,
            truth,
            tuple(scalings),
            tuple(saturated),
            image.read(region)[0, 0, 0].astype(np.float32),
            next((size for size in sizes if size is not None), None),
        )

    def scores(
        self,
        model: Model,
        settings: EvaluateOptions,
        warn: Callable[[str], None],
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
    ) -> tuple[Scores, Mapping[str, Any] | None]:
        """Run the model, compare its distributions with the truth, and say how unlike the image is."""
        scores = Scores(self.truth)
        result = label_image(
            self.image,
            [model],
            _labeling_options(settings, model, self.labels),
            store=scores.store,
            progress=progress,
            cancelled=cancelled,
            warn=warn,
        )
        provenance = result["mean"].provenance or {}
        return scores, provenance["models"][0].get("out_of_distribution")

    def nuclei(self, mean: Array, index: int, settings: EvaluateOptions) -> _Nuclei:
        """Find and match the nuclei of a label."""
        size = self.pixel_size_um
        diameter_px = UNKNOWN_DIAMETER_PX if size is None else settings.nucleus_diameter_um / size
        true, predicted = (
            [find_nuclei(plane, diameter_px=diameter_px) for plane in planes]
            for planes in (self.truth[:, index], mean)
        )
        pairs = [match_nuclei(*planes).pairs for planes in zip(true, predicted, strict=True)]
        return _Nuclei(true, predicted, pairs)

    def figures(self, scores: Scores, index: int, nuclei: _Nuclei | None) -> LabelFigures:
        """Return the figures of a label."""
        truth, mean = self.truth[:, index], scores.mean[:, index]
        scaling = self.scalings[index]
        objects: dict[str, Any] = {}
        if nuclei is not None:
            true, predicted, matched = nuclei.counts
            objects = {
                "object_f1": object_f1(true, predicted, matched),
                "count_error": count_error(true, predicted),
                "nuclei_true": true,
                "nuclei_predicted": predicted,
                "nuclei_matched": matched,
            }
        return LabelFigures(
            pearson_r=pearson_r(mean, truth),
            nrmse=nrmse(mean, truth, DATA_RANGE),
            ssim=float(np.mean([ssim(m, t, DATA_RANGE) for m, t in zip(mean, truth, strict=True)])),
            psnr=psnr(mean, truth, DATA_RANGE),
            crps=float(scores.crps[index] / truth.size),
            coverage_90=float(scores.inside_90[index] / truth.size),
            gray_value_of_0=scaling.zero,
            gray_value_of_1=scaling.zero + scaling.unit,
            saturated_share=self.saturated[index],
            **objects,
        )

    def example(self, scores: Scores, index: int, figures: LabelFigures, nuclei: _Nuclei | None) -> Example:
        """Return what the pictures of a label are made of, at the middle time."""
        t, times = self.image.shape[0] // 2, self.image.shape[0]
        planes = [self.light, self.truth[t, index], scores.mean[t, index], scores.sd[t, index]]
        step, size = reduction(self.image, WHOLE_PX), self.pixel_size_um
        coarse = None if size is None else size * step
        window = worst_window((planes[2] - planes[1]) ** 2)
        return Example(
            self.image.name,
            f"time {t + 1} of {times}" if times > 1 else "",
            figures,
            Planes(coarse, *[reduced(plane, step) for plane in planes]),
            Planes(size, *[plane[window].copy() for plane in planes]),
            None if nuclei is None else self._found(nuclei, t, planes[1], planes[2]),
        )

    def _found(self, nuclei: _Nuclei, t: int, truth: Array, mean: Array) -> FoundNuclei:
        step, size = reduction(self.image, NUCLEI_PX), self.pixel_size_um
        grid = np.s_[::step, ::step]
        pairs = np.array(nuclei.pairs[t], np.int32).reshape(-1, 2)
        signed = []
        for numbers, matched in ((nuclei.true[t], pairs[:, 0]), (nuclei.predicted[t], pairs[:, 1])):
            renamed = -np.arange(int(numbers.max()) + 1, dtype=np.int32)
            renamed[matched] *= -1
            signed.append(renamed[numbers[grid]])
        pixel_size_um = None if size is None else size * step
        return FoundNuclei(pixel_size_um, truth[grid].copy(), mean[grid].copy(), *signed)


def _checked_labels(
    pairs: Sequence[TrainingPair | FoundPair], model: Model, settings: EvaluateOptions
) -> tuple[Label, ...]:
    """Return the labels that are evaluated, in the model's order."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair.labels))
    if not names:
        raise UsageError(
            "there is nothing to evaluate",
            "",
            "Give at least one image and a stained image: --input PATTERN --label NAME=PATTERN.",
        )
    known = [label.name for label in model.card.labels]
    for name in names:
        if name not in known:
            raise UsageError(
                f"the model {model.name!r} predicts no label {name!r}",
                "",
                f"It predicts: {', '.join(known)}. Give the stained images the model's name of their label, "
                f"such as --label {known[0]}=PATTERN.",
            )
    for name in settings.nuclear_labels:
        if name not in names:
            raise UsageError(
                f"--nuclear-labels names {name!r}, which is not evaluated",
                "",
                f"Choose from: {', '.join(names)}.",
            )
    return tuple(label for label in model.card.labels if label.name in names)


def _common_scalings(
    pairs: Sequence[TrainingPair | FoundPair], labels: Sequence[Label]
) -> dict[tuple[str, ...], IntensityScaling]:
    """Return the scalings of labels whose stained images are scaled together."""
    stains: dict[tuple[str, ...], list[Image]] = {}
    for pair in pairs:
        if pair.label_scaling == "image":
            continue
        try:
            opened = pair.open() if isinstance(pair, FoundPair) else pair
        except LinceiError:
            continue  # it is listed when its turn comes
        for name, stain in opened.labels.items():
            stains.setdefault(_scaled_with(opened, name), []).append(stain)
    by_name = {label.name: label for label in labels}
    return {key: truth_scaling(by_name[key[0]], *images) for key, images in stains.items()}


def _scaled_with(pair: TrainingPair, name: str) -> tuple[str, ...]:
    """Return what the stained images have in common that are scaled together."""
    if pair.label_scaling == "image":
        return ()
    return (name, pair.set_name, pair.group if pair.label_scaling == "group" else "")


def _check_stain(stain: Image, name: str, image: Image) -> None:
    """Refuse a stained image that does not lie pixel on pixel on its input."""
    if stain.shape[3:] != image.shape[3:] or stain.shape[0] != image.shape[0]:
        raise LinceiError(
            f"the label {name!r} is {stain.shape[3]} x {stain.shape[4]} pixels (y by x) at "
            f"{stain.shape[0]} time(s), its input {image.shape[3]} x {image.shape[4]} at {image.shape[0]}",
            stain.source or stain.name,
            f"Label and input ({image.source or image.name}) must lie pixel on pixel; crop or resize one of "
            "them.",
        )
    if stain.shape[1] != 1:
        raise LinceiError(
            f"the label {name!r} has {stain.shape[1]} channels, and one is needed",
            stain.source or stain.name,
            "Save the channel of this label as an image of its own.",
        )


def _highest_gray_value(stain: Image) -> float | None:
    """Return the highest value that the camera or the file can hold; None for floating point."""
    if stain.intensity_range is None:
        return None
    top = stain.intensity_range[1]
    if top != 65535:
        return top
    # A camera of 10, 12 or 14 bits saturates below what its 16-bit files could hold.
    highest = max(int(stain.read({"T": slice(t, t + 1)}).max()) for t in range(stain.shape[0]))
    return float(highest) if highest in (1023, 4095, 16383) else top


def _is_nuclear(name: str, settings: EvaluateOptions) -> bool:
    """Tell whether objects of a label are counted."""
    if settings.nuclear_labels:
        return name in settings.nuclear_labels
    return stain_of(name) == stain_of("nuclei")


def is_known(model: Model, name: str) -> bool:
    """Tell whether a field of that name, or one of its times, is among those that the model learned from."""
    fields = model.card.training.get("field_names", ())
    return any(field == name or field.startswith(f"{name} t=") for field in fields)


def _known_sentence(names: Sequence[str], count: int, model: Model) -> str:
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    who = (
        f"{listed} bears the name of a field"
        if len(names) == 1
        else f"{len(names)} of {count} fields ({listed}) bear names of fields"
    )
    return (
        f"{who} that the model {model.name!r} learned from. If they are the same, the figures flatter the "
        "model."
    )


def _name(pair: TrainingPair | FoundPair) -> str:
    return pair.input.stem if isinstance(pair, FoundPair) else pair.image.name
