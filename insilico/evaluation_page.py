"""What an evaluation writes: figures as JSON and CSV, and a page that shows where a model errs."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lincei
from insilico.evaluation import (
    DATA_RANGE,
    METRICS,
    Evaluation,
    LabelFigures,
)
from insilico.evaluation_examples import Example, FoundNuclei, Planes
from insilico.evaluation_scores import SD_EDGES, VALUE_EDGES, Curves
from insilico.nuclei import MATCHING_IOU, UNKNOWN_DIAMETER_PX
from insilico.panels import (
    ERROR_LIMIT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    LABEL_LIMITS,
    PREDICTION_FRAME,
    TRUTH_FRAME,
    error_panel,
    framed,
    prediction_panel,
    truth_panel,
)
from lincei.image import replacing, writable_errors
from lincei.model_card import Label
from lincei.report import (
    ColorScale,
    Figure,
    Page,
    Section,
    Table,
    gray_to_rgb,
    map_to_rgb,
    write_page,
)

RGB = NDArray[np.uint8]

METRICS_FILE, TABLE_FILE, PAGE_FILE = "metrics.json", "metrics.csv", "report.html"

# A plot is drawn this large, in inches and dots per inch; three of them share a row, also on sharp screens.
_PLOT_SIZE, _PLOT_DPI = (4.8, 4.0), 180
# Cautions that the page shows; the rest is in the metrics.
_MOST_NOTES = 6
# Pictures larger than this are shown smaller, which a thin outline does not survive.
_THIN_OUTLINES_PX = 600
# Where more of a stained image is saturated, its bright end is not known.
_WORTH_NAMING_SATURATION = 1e-3

_TITLES = {
    "pearson_r": "Pearson r",
    "nrmse": "NRMSE",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "crps": "CRPS",
    "coverage_90": "inside 90 % interval (%)",
    "object_f1": "nuclei, F1",
    "count_error": "nuclei, count error (%)",
}
_MEANINGS = {
    "pearson_r": "correlation of predicted and true pixels; 1 is perfect",
    "nrmse": "root-mean-square error as a share of the data range; 0 is perfect",
    "ssim": "structural similarity in windows of 7x7 pixels, with that data range; 1 is perfect",
    "psnr": "20 log10 of the data range over the root-mean-square error, in dB",
    "crps": "mean continuous ranked probability score of the predicted distributions, on the label's scale; "
    "0 is perfect",
    "coverage_90": "share of pixels whose truth lies between the predicted 5 % and 95 % quantiles; 90 % is "
    "calibrated, more is too cautious, less too sure",
    "object_f1": "2 matched / (true + predicted) nuclei, matched at an intersection over union of "
    f"{MATCHING_IOU:g} or more; not defined where neither image has any",
    "count_error": "difference of the numbers of predicted and true nuclei as a share of the true number (of "
    "1 where that is 0)",
    "data_range": f"{DATA_RANGE:g}: the distance from 0 to 1 on the label's normalized scale",
    "gray_value_of_0": "gray value of the stained image that is 0 on that scale, a percentile named in the "
    "model's card",
    "gray_value_of_1": "gray value that is 1 on that scale, another percentile",
    "saturated_share": "share of the stained image's pixels that hold the highest possible gray value",
}


def write_evaluation(
    evaluation: Evaluation, examples: Mapping[str, Sequence[Example]], folder: Path
) -> list[Path]:
    """Write ``report.html``, ``metrics.json`` and ``metrics.csv``.

    Parameters
    ----------
    evaluation : Evaluation
        Of one image at least.
    examples : mapping of str to sequence of Example
        By label, the worst first.
    folder : Path
        Where to; it must be there.

    Returns
    -------
    list of Path
        The files, as `files_of` names them.
    """
    with replacing(folder / METRICS_FILE) as path:
        text = json.dumps(metrics_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", "utf-8")
    with (
        replacing(folder / TABLE_FILE) as path,
        # With the mark by which spreadsheets know UTF-8.
        path.open("w", newline="", encoding="utf-8-sig") as file,
    ):
        csv.writer(file).writerows(_csv_rows(evaluation))
    with writable_errors(folder / PAGE_FILE):
        write_page(evaluation_page(evaluation, examples), folder / PAGE_FILE)
    return files_of(folder)


def files_of(folder: str | Path) -> list[Path]:
    """Return the files that an evaluation writes into a folder, the page first."""
    return [Path(folder) / name for name in (PAGE_FILE, METRICS_FILE, TABLE_FILE)]


def means_as_text(evaluation: Evaluation) -> str:
    """Return the means over images as lines of text, a column for each metric."""
    lines = [["", "images", *METRICS]]
    for label in evaluation.labels:
        means = evaluation.means(label.name)
        cells = [f"{means[metric][0]:.3g}" if metric in means else "-" for metric in METRICS]
        lines.append([label.name, str(len(evaluation.of(label.name))), *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def metrics_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return all figures, JSON-able; what is not defined is None."""
    model = evaluation.model
    return {
        "model": {"name": model.name, "hash": model.hash, "version": model.card.created},
        "labels": [dataclasses.asdict(label) for label in evaluation.labels],
        "lincei_version": lincei.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "engine": evaluation.engine,
        "parameters": evaluation.parameters,
        "meanings": _MEANINGS,
        "means": {label.name: _means_json(evaluation, label.name) for label in evaluation.labels},
        "images": [
            {
                "image": image.name,
                "source": image.source,
                "shape_tczyx": list(image.shape),
                "pixel_size_um": image.pixel_size_um,
                "known_to_model": image.known_to_model,
                "out_of_distribution": image.out_of_distribution,
                "labels": {name: _figures_json(figures) for name, figures in image.labels.items()},
            }
            for image in evaluation.images
        ],
        "calibration": {
            name: {"predicted": predicted.round(4).tolist(), "observed": observed.round(6).tolist()}
            for name, curves in evaluation.curves.items()
            for predicted, observed in [curves.interval_shares()]
        },
        "failures": [
            {
                "image": failure.item,
                "what": failure.error.what,
                "where": failure.error.where,
                "what_to_do": failure.error.what_to_do,
            }
            for failure in evaluation.batch.failures
        ],
        "not_started": list(evaluation.batch.not_started),
        "cautions": list(evaluation.cautions),
        "note": "Research use only.",
    }


def _means_json(evaluation: Evaluation, label: str) -> dict[str, Any]:
    ranked, means = evaluation.of(label), evaluation.means(label)
    return {
        "images": len(ranked),
        **{metric: mean for metric, (mean, _) in means.items()},
        "images_where_defined": {metric: count for metric, (_, count) in means.items()},
        "worst_image": ranked[0][0].name,
        "best_image": ranked[-1][0].name,
    }


def _figures_json(figures: LabelFigures) -> dict[str, float | int | None]:
    """Return figures without NaN and infinity; those of nuclei only where they are counted."""
    nuclear = ("object_f1", "count_error", "nuclei_true", "nuclei_predicted", "nuclei_matched")
    values = {name: getattr(figures, name) for name in LabelFigures.__dataclass_fields__}
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in values.items()
        if name not in nuclear or figures.nuclei_true is not None
    }


def _csv_rows(evaluation: Evaluation) -> list[list[Any]]:
    names = list(LabelFigures.__dataclass_fields__)
    rows: list[list[Any]] = [["image", "label", *names, "known_to_model", "source"]]
    for image in evaluation.images:
        for label, figures in image.labels.items():
            values = _figures_json(figures)
            cells = ["" if values.get(name) is None else values[name] for name in names]
            rows.append([image.name, label, *cells, image.known_to_model, image.source])
    return rows


def evaluation_page(evaluation: Evaluation, examples: Mapping[str, Sequence[Example]]) -> Page:
    """Return the page: a summary, then for each label its curves and pictures, then all figures.

    Parameters
    ----------
    evaluation : Evaluation
        Of one image at least.
    examples : mapping of str to sequence of Example
        By label, the worst first.
    """
    names = [label.name for label in evaluation.labels]
    sections = [_summary(evaluation)]
    for label in evaluation.labels:
        sections += _label_sections(evaluation, label, examples[label.name])
    return Page(
        f"Evaluation of {evaluation.model.name}",
        f"Predictions of {_listed(names)} compared with the stained images of "
        f"{_counted(len(evaluation.images), 'field')}, pixel by pixel.",
        (*sections, _all_figures(evaluation), _small_print(evaluation)),
        {"engine": evaluation.engine},
    )


def _shown_metrics(evaluation: Evaluation) -> list[str]:
    """Return the metrics that any label has; those of nuclei only where some are counted."""
    return [
        metric
        for metric in METRICS
        if any(metric in evaluation.means(label.name) for label in evaluation.labels)
    ]


def _summary(evaluation: Evaluation) -> Section:
    metrics = _shown_metrics(evaluation)
    rows = []
    for label in evaluation.labels:
        ranked, means = evaluation.of(label.name), evaluation.means(label.name)
        worst = _cell("pearson_r", ranked[0][1].pearson_r)
        cells = [_cell(metric, means[metric][0]) if metric in means else "" for metric in metrics]
        rows.append((label.name, len(ranked), worst, *cells))
    notes = list(evaluation.cautions[:_MOST_NOTES])
    if len(evaluation.cautions) > _MOST_NOTES:
        notes.append(f"{len(evaluation.cautions) - _MOST_NOTES} more cautions are in {METRICS_FILE}.")
    if failures := evaluation.batch.failures:
        listed = " ".join(failure.sentence() for failure in failures[:_MOST_NOTES])
        notes.append(f"Not evaluated: {_counted(len(failures), 'field')}. {listed}")
    if left := evaluation.batch.not_started:
        notes.append(f"The evaluation was stopped before its end; {_counted(len(left), 'field')} not done.")
    if len(evaluation.images) == 1:
        notes.append("One field says little about others: evaluate several, from several days or donors.")
    return Section(
        "Summary",
        tables=(
            Table(
                ("label", "fields", "worst r", *(_TITLES[metric] for metric in metrics)),
                tuple(rows),
                "Means over the fields. The small print says what each figure means.",
            ),
        ),
        notes=tuple(notes),
    )


def _label_sections(evaluation: Evaluation, label: Label, examples: Sequence[Example]) -> list[Section]:
    """Return a label's curves, its pictures and its nuclei."""
    ranked, worst = evaluation.of(label.name), examples[0]
    ends = [f"{image.name} (r {_r(figures)})" for image, figures in (ranked[0], ranked[-1])]
    order = (
        " The worst field comes first and the best last; between them are fields spread evenly over all, "
        "which nobody selected."
    )
    rows = [_row(item.whole, label, _title(item), f"r {_r(item.figures)}") for item in examples]
    sections = [
        Section(
            label.name,
            text=(
                f"Worst field: {ends[0]}; best: {ends[1]}." if len(ranked) > 1 else f"One field: {ends[0]}.",
            ),
            figures=_plots(evaluation.curves[label.name]),
            columns=3,
        ),
        Section(
            f"{label.name}: pictures",
            text=(
                "Teal frame: stained. Purple frame: predicted. Black: predicted less stained; orange where "
                "light is predicted that is not there, blue where light is missed."
                + (order if len(examples) > 1 else "")
                + f" The last row is the part of {_title(worst)} where it is most wrong.",
            ),
            figures=(
                *(figure for row in rows for figure in row),
                *_row(worst.close, label, _title(worst), "where it is most wrong"),
            ),
            columns=5,
        ),
    ]
    nuclei = [(item, item.nuclei) for item in dict.fromkeys((worst, examples[-1])) if item.nuclei is not None]
    return [*sections, _nuclei_section(label, nuclei)] if nuclei else sections


def _plots(curves: Curves) -> tuple[Figure, ...]:
    return (
        Figure(
            calibration_plot(curves),
            "Calibration: of intervals that should hold a certain share of the truths, the share that they "
            "held. On the dashed line probabilities mean what they say; above it the model is too cautious, "
            f"below it too sure. The 90 % interval held {100 * _inside_90(curves):.1f} %.",
        ),
        Figure(
            density_plot(curves),
            "Predicted against true value of every pixel. On the dashed line the two agree. 1 is the bright "
            "end of the stained image; pixels beyond an edge are counted on it.",
        ),
        Figure(
            error_plot(curves),
            "Predicted standard deviation against the error that was found: root mean squares over pixels of "
            "like sd. On the dashed line the sd tells the size of errors; above it, errors are larger. Gray: "
            "how many pixels have which sd.",
        ),
    )


def _row(planes: Planes, label: Label, field: str, remark: str) -> tuple[Figure, ...]:
    """Return one row of pictures: input, truth, prediction, error, uncertainty."""
    size, of_field = planes.pixel_size_um, f"{label.name} of {field}"
    error = framed(error_panel(planes.mean, planes.truth), "#000000")
    return (
        Figure(framed(gray_to_rgb(planes.light), "#000000"), f"{field}, {remark}", f"Input of {field}", size),
        Figure(truth_panel(planes.truth, label.color), "stained", f"Stained {of_field}", size),
        Figure(prediction_panel(planes.mean, label.color), "predicted", f"Predicted {of_field}", size),
        Figure(error, f"error, brightest from {ERROR_LIMIT:g} on", f"Error of {of_field}", size),
        Figure(
            framed(map_to_rgb(planes.sd, 0, ERROR_LIMIT), "#000000"),
            "",
            f"Standard deviation of {of_field}",
            color_scale=ColorScale(0, ERROR_LIMIT, "standard deviation"),
        ),
    )


def _nuclei_section(label: Label, shown: Sequence[tuple[Example, FoundNuclei]]) -> Section:
    figures: list[Figure] = []
    for example, found in shown:
        size = found.pixel_size_um
        for plane, nuclei, frame, other, kind, lacking in (
            (found.truth, found.true, TRUTH_FRAME, FALSE_NEGATIVE, "stained", "missed (blue)"),
            (
                found.mean,
                found.predicted,
                PREDICTION_FRAME,
                FALSE_POSITIVE,
                "predicted",
                "not there (orange)",
            ),
        ):
            numbers = np.unique(nuclei)
            count, unmatched = (int(np.count_nonzero(some)) for some in (numbers, numbers < 0))
            caption = f"{_title(example)}, {kind}: {_counted(count, 'object')}, {unmatched} {lacking}"
            figures.append(Figure(outlined_nuclei(plane, nuclei, frame, other), caption, pixel_size_um=size))
    return Section(
        f"{label.name}: objects",
        text=(
            "Objects found by the same simple rule in the stained and in the predicted image. Teal and "
            "purple: the same one in both. Blue: stained and missed. Orange: predicted and not there. Nuclei "
            "that are joined in one image and apart in the other count as missed and as not there.",
        ),
        figures=tuple(figures),
        columns=2,
    )


def outlined_nuclei(
    plane: NDArray[Any], nuclei: NDArray[Any], color: str, other: Sequence[int] | NDArray[Any]
) -> RGB:
    """Return a plane in a frame, with the outlines of nuclei.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        On the label's normalized scale.
    nuclei : ndarray of int, shape (Y, X)
        Numbers of nuclei, 0 outside; negative for those that match no other.
    color : str
        ``"#RRGGBB"`` of the frame and of the nuclei that match.
    other : sequence of int
        Red, green and blue of the nuclei that do not.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    from skimage.segmentation import find_boundaries

    picture = gray_to_rgb(plane, limits=LABEL_LIMITS)
    mode = "thick" if max(plane.shape) > _THIN_OUTLINES_PX else "inner"
    matched = tuple(bytes.fromhex(color.removeprefix("#")))
    for chosen, drawn in ((nuclei > 0, matched), (nuclei < 0, tuple(other))):
        picture[find_boundaries(np.where(chosen, nuclei, 0), mode=mode)] = drawn
    return framed(picture, color)


def _all_figures(evaluation: Evaluation) -> Section:
    metrics = _shown_metrics(evaluation)
    counted = "count_error" in metrics
    rows = []
    for label in evaluation.labels:
        for image, figures in evaluation.of(label.name):
            cells: list[str | int | float] = [image.name, label.name]
            cells += [_cell(metric, getattr(figures, metric)) for metric in metrics]
            counts = (figures.nuclei_true, figures.nuclei_predicted, figures.nuclei_matched)
            cells += ["" if count is None else count for count in counts] if counted else []
            rows.append(tuple(cells))
    header = ("field", "label", *(_TITLES[metric] for metric in metrics))
    return Section(
        "All fields",
        tables=(
            Table(
                (*header, "nuclei: true", "predicted", "matched") if counted else header,
                tuple(rows),
                f"The worst r first. Also in {TABLE_FILE}, for a spreadsheet, and in {METRICS_FILE}.",
            ),
        ),
    )


def _small_print(evaluation: Evaluation) -> Section:
    model, card = evaluation.model, evaluation.model.card
    metrics = _shown_metrics(evaluation)
    scales = [
        f"{label.name} {label.background_percentile or 0:g} and {label.bright_percentile or 100:g}"
        + ("" if label.curve == "linear" else f" on an {label.curve} curve")
        for label in evaluation.labels
    ]
    saturated = [
        f"{image.name} ({name}, {100 * figures.saturated_share:.2g} %)"
        for image in evaluation.images
        for name, figures in image.labels.items()
        if figures.saturated_share > _WORTH_NAMING_SATURATION
    ]
    percent = 100 * _WORTH_NAMING_SATURATION
    text = [
        f"Model {model.name} of {card.created}, SHA-256 {model.hash}, made with "
        f"{_counted(int(card.training.get('fields', 0)), 'field')}; split: "
        f"{card.training.get('split', 'not stated')}.",
        "Truth and prediction are on the label's normalized scale. Its 0 and 1 are percentiles of the "
        f"stained images ({_listed(scales)}), and nothing is fitted. Of NRMSE, SSIM and PSNR the data range "
        f"is {DATA_RANGE:g}, from 0 to 1. A field with several times counts as one.",
        "Neighboring pixels resemble each other: how sure these figures are is a matter of the number of "
        "fields, not of pixels.",
        (
            f"More than {percent:g} % of the pixels are saturated in {_listed(saturated[:12])}: how bright "
            "those were nobody knows."
            if saturated
            else f"In no stained image are more than {percent:g} % of the pixels saturated."
        )
        + " Such pixels are counted as they are; images with pixels that are no numbers are refused.",
    ]
    if "count_error" in metrics:
        text.append(
            "Nuclei: both images are smoothed by a tenth of a nucleus's diameter "
            f"({evaluation.parameters['nucleus_diameter_um']:g} um, or {UNKNOWN_DIAMETER_PX:g} pixels where "
            "the pixel size is unknown) and cut at Otsu's threshold; what has a neck is split there, and "
            "what is smaller than half the diameter is left out. In dense clusters so simple a rule is no "
            "good judge."
        )
    meanings = tuple((_TITLES[metric].removesuffix(" (%)"), _MEANINGS[metric]) for metric in metrics)
    return Section("Small print", text=tuple(text), tables=(Table(("figure", "meaning"), meanings),))


def calibration_plot(curves: Curves) -> RGB:
    """Return the share of truths inside predicted intervals, against the predicted probability."""
    figure, axes = _plot("predicted probability of an interval", "share of truths inside it")
    predicted, observed = curves.interval_shares()
    inside = _inside_90(curves)
    axes.plot([0, 1], [0, 1], "--", color="0.5", linewidth=1)
    axes.fill_between(predicted, predicted, observed, color=PREDICTION_FRAME, alpha=0.12, linewidth=0)
    axes.plot(predicted, observed, color=PREDICTION_FRAME, linewidth=2)
    axes.plot([0.9], [inside], "o", color=PREDICTION_FRAME, markersize=7, clip_on=False)
    axes.annotate(
        f"90 % interval:\n{100 * inside:.1f} % inside",
        (0.9, inside),
        (0.97, 0.12),
        ha="right",
        arrowprops={"arrowstyle": "-", "color": "0.6", "shrinkB": 6},
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _drawn(figure)


def density_plot(curves: Curves) -> RGB:
    """Return the two-dimensional histogram of predicted against true values."""
    from matplotlib.colors import ListedColormap, LogNorm

    figure, axes = _plot("true value", "predicted value")
    counts = np.ma.masked_equal(curves.density.T, 0)
    # Few pixels are pale and many are dark, as on paper.
    colors = ListedColormap(map_to_rgb(np.linspace(1, 0, 256)[None], 0, 1)[0] / 255)
    scale = LogNorm(1, max(2, int(counts.max())))
    mesh = axes.pcolormesh(VALUE_EDGES, VALUE_EDGES, counts, norm=scale, cmap=colors)
    ends, ticks = VALUE_EDGES[[0, -1]], np.arange(0, VALUE_EDGES[-1], 0.25)
    axes.plot(ends, ends, "--", color="0.5", linewidth=1)
    axes.set(xlim=ends, ylim=ends, xticks=ticks, yticks=ticks, aspect="equal")
    figure.colorbar(mesh, ax=axes, label="pixels", shrink=0.9)
    return _drawn(figure)


def error_plot(curves: Curves) -> RGB:
    """Return the root-mean-square error against the predicted standard deviation."""
    figure, axes = _plot("predicted standard deviation", "root-mean-square error")
    predicted, found = curves.error_by_sd()
    found = np.maximum(found, 1e-3 * predicted)  # a bin without any error still has a place on the axis
    low = 0.7 * float(min(predicted.min(), found.min()))
    high = 1.4 * float(max(predicted.max(), found.max()))
    behind = axes.twinx()
    behind.bar(SD_EDGES[:-1], curves.sd_pixels, np.diff(SD_EDGES), align="edge", color="0.88", linewidth=0)
    behind.set(ylim=(0, 4 * curves.sd_pixels.max()), yticks=[])
    behind.spines[:].set_visible(False)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([low, high], [low, high], "--", color="0.5", linewidth=1)
    axes.plot(predicted, found, "o-", color=PREDICTION_FRAME, linewidth=1.5, markersize=4)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    ticks = [
        tick for power in range(-6, 4) for tick in (10.0**power * np.array([1, 2, 5])) if low < tick < high
    ]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    return _drawn(figure)


def _inside_90(curves: Curves) -> float:
    return float(np.interp(0.9, *curves.interval_shares()))


def _plot(x_label: str, y_label: str) -> tuple[Any, Any]:
    """Return a figure of matplotlib's and its axes; without pyplot, which would keep it and want a screen."""
    from matplotlib.figure import Figure as Plot

    figure = Plot(figsize=_PLOT_SIZE, dpi=_PLOT_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _drawn(figure: Any) -> RGB:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _title(example: Example) -> str:
    return f"{example.image}, {example.time}" if example.time else example.image


def _cell(metric: str, value: float | None) -> float | str:
    """Return a figure as it stands in a table; nothing where it is not defined."""
    if value is None or not math.isfinite(value):
        return ""
    return 100 * float(value) if metric in ("coverage_90", "count_error") else float(value)


def _r(figures: LabelFigures) -> str:
    r = figures.pearson_r
    return f"{r:.3f}" if math.isfinite(r) else "not defined: the prediction is constant"


def _counted(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
