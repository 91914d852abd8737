"""The jobs of in silico labeling for other programs; see `lincei.worker` for how they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from insilico.label_curve import CURVES
from insilico.labeling import label as label_image
from insilico.options import LabelOptions, TrainOptions
from insilico.pair_files import LABEL_SCALINGS, TrainingPair, open_pairs, open_sets
from lincei.errors import CancelledError, UsageError
from lincei.image import Image, open_image
from lincei.model import find_model, models_folder
from lincei.progress import CancelCheck, ProgressCallback, stop_if_cancelled
from lincei.worker import needed

_IMAGE_FIELDS = ("name", "source", "pixel_size_um", "z_step_um", "time_step_s", "modality", "channel_names")
_PAIR_KEYS = ("image", "labels", "group", "use", "set_name", "label_scaling", "label_curve", "share")
_FILE_KEYS = ("split_by", "tune_on", "test_on", "label_scaling", "label_curve")


def train(
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    finish: CancelCheck | None = None,
) -> dict[str, Any]:
    """Learn labels from pairs of images, as ``lincei train`` does.

    Parameters
    ----------
    data : mapping
        ``"out"``: the model's name, under which every program finds it, or its folder. And at least one of

        - ``"pairs"``: list of ``{"image": IMAGE, "labels": {NAME: IMAGE}}``, where IMAGE is a path or
          ``{"array": ndarray, "axes": "ZYX", "pixel_size_um": ..., "z_step_um": ..., "modality": ...,
          "name": ...}`` (all but the array may be left out where they are not known; axes only of two axes);
          other keys as the fields of `insilico.TrainingPair`;
        - ``"input"`` and ``"labels"`` (``{NAME: PATTERN}``): patterns of files, and ``"split_by"``,
          ``"tune_on"``, ``"test_on"``, ``"label_scaling"``, ``"label_curve"`` as the flags of that command;
        - ``"sets"``: TOML file that lists sets of pairs.
    options : mapping
        Fields of `insilico.TrainOptions`. ``"resume": True`` goes on with a training of the same images and
        options that was canceled, or whose program has ended, and starts anew where there is none.
    progress, cancelled : callable, optional
        See `lincei.progress`. Epochs bring metrics (``epoch``, ``steps``, ``loss``, ``score``, ``r(LABEL)``)
        and a preview; in between come ``steps`` and ``loss``.
    finish : callable, optional
        When it turns true, the best model so far is kept, measured and written.

    Returns
    -------
    dict
        ``"model"`` (its name), ``"folder"``, ``"readme"`` (the card in words, Markdown), ``"figures"`` (as in
        the card), ``"finished"`` (whether it can be used as it is).

    Raises
    ------
    CancelledError
        When it was canceled; its state is kept.
    """
    from insilico.training import train as train_network
    from lincei.training import TrainingStoppedError

    settings = TrainOptions.from_mapping(options)
    (out,) = needed(data, "out")
    pairs = _pairs(data)
    try:
        model = train_network(
            pairs,
            model_target(str(out)),
            settings,
            command="",
            progress=progress,
            cancelled=cancelled,
            finish=finish,
            previews=True,
        )
    except TrainingStoppedError as stopped:
        raise CancelledError from stopped
    return {
        "model": model.name,
        "folder": model.folder,
        "readme": model.file("README.md").read_text("utf-8"),
        "figures": model.card.figures,
        "finished": model.card.finished,
    }


# The client may be gone, and the state of a training is worth a wait: a step, and writing it.
train.grace_s = 10.0  # type: ignore[attr-defined]


def label(
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> dict[str, Any]:
    """Predict fluorescence from an image, as `insilico.label` does.

    Parameters
    ----------
    data : mapping
        ``"image"``: a path or an array, as in the pairs of `train`.
    options : mapping
        Fields of `insilico.LabelOptions`.
    progress, cancelled : callable, optional
        See `lincei.progress`.

    Returns
    -------
    dict
        ``"statistics"``: for each statistic an array, float32, axes TCZYX with a channel per label;
        ``"labels"``: names; ``"colors"``: ``"#RRGGBB"`` for each; ``"pixel_size_um"``: of the input, or None;
        ``"scale_assumed"``: whether the pixel size was not known where the model's is; ``"provenance"``: how
        it was made.
    """
    settings = LabelOptions.from_mapping(options)
    (given,) = needed(data, "image")
    stop_if_cancelled(cancelled)
    image = image_of(given, "image")
    results = label_image(image, options=settings, progress=progress, cancelled=cancelled)
    first = next(iter(results.values()))
    pixel_size_um = settings.pixel_size_um or image.pixel_size_um
    models = [find_model(name, task="label") for name in settings.model]
    return {
        "statistics": {name: np.asarray(result.read(), np.float32) for name, result in results.items()},
        "labels": first.channel_names,
        "colors": first.channel_colors,
        "pixel_size_um": pixel_size_um,
        "scale_assumed": pixel_size_um is None and any(m.card.pixel_size_um is not None for m in models),
        "provenance": dict(first.provenance or {}),
    }


def model_target(name_or_folder: str) -> Path:
    """Return where a new model is written: a plain name goes where all programs look for models.

    Raises
    ------
    UsageError
        When it is empty or no name for a folder.
    """
    text = name_or_folder.strip()
    if "/" in text or "\\" in text:
        return Path(text).expanduser()
    if not text or text.startswith((".", "_")):
        raise UsageError(f"{text!r} is no name for a model", "", "Begin it with a letter or a digit.")
    if set(text) & set('<>:"|?*'):
        raise UsageError(f"{text!r} is no name for a model", "", "Use letters, digits, spaces, '-' and '_'.")
    return models_folder() / text


def stopped_training(name_or_folder: str) -> bool:
    """Tell whether a training of this name was stopped, so that ``resume`` goes on with it."""
    target = model_target(name_or_folder).absolute()
    return any(target.with_name(f"{target.name}.training").glob("*.npz"))


def image_of(given: Any, what: str) -> Image:
    """Return the image that a client named or sent.

    Parameters
    ----------
    given : str or mapping
        A path, or ``{"array": ndarray, "axes": ..., ...}`` with fields of `lincei.image.Image`.
    what : str
        What it is, for messages.

    Raises
    ------
    UsageError
        When it is neither, or a field is not one of an image.
    LinceiError
        When the file cannot be read, or the fields do not fit the array.
    """
    if isinstance(given, str):
        return open_image(given)
    if not isinstance(given, Mapping) or not isinstance(given.get("array"), np.ndarray):
        raise UsageError(f"the {what} is neither a path nor an array with its axes")
    fields = {name: value for name, value in given.items() if name not in ("array", "axes")}
    for name in fields:
        if name not in _IMAGE_FIELDS:
            raise UsageError(
                f"an image has no {name!r}", what, f"There are: array, axes, {', '.join(_IMAGE_FIELDS)}."
            )
    known = {name: value for name, value in fields.items() if value is not None}
    known.setdefault("name", what)
    return Image.from_array(given["array"], given.get("axes"), **known)


def _pairs(data: Mapping[str, Any]) -> list[TrainingPair]:
    """Return the pairs that a client sent, named by patterns or listed in a file."""
    pairs: list[TrainingPair] = []
    for number, entry in enumerate(_listed(data.get("pairs")), start=1):
        pairs.append(_pair(entry, f"pair {number}"))
    if data.get("sets"):
        pairs += open_sets(str(data["sets"]))
    if data.get("input"):
        labels = data.get("labels") or {}
        stated = {name: data[name] for name in _FILE_KEYS if data.get(name)}
        pairs += open_pairs(str(data["input"]), [f"{name}={p}" for name, p in labels.items()], **stated)
    if not pairs:
        raise UsageError(
            "there is nothing to train from",
            "",
            "Give at least one image and a stained one of the same field.",
        )
    return pairs


def _listed(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UsageError("the pairs are no list")
    return given


def _pair(entry: Any, what: str) -> TrainingPair:
    """Return one pair that a client sent."""
    if not isinstance(entry, Mapping):
        raise UsageError(f"{what} is no mapping with an image and labels")
    for name in entry:
        if name not in _PAIR_KEYS:
            raise UsageError(f"a pair has no {name!r}", what, f"There are: {', '.join(_PAIR_KEYS)}.")
    image, labels = needed(entry, "image", "labels")
    if not isinstance(labels, Mapping) or not labels:
        raise UsageError("no label is given", what, "Give each stained image a name.")
    for key, allowed in (("label_scaling", LABEL_SCALINGS), ("label_curve", CURVES)):
        if entry.get(key, allowed[0]) not in allowed:
            raise UsageError(f"{key} is {entry[key]!r}", what, f"Choose from: {', '.join(allowed)}.")
    others = {name: entry[name] for name in _PAIR_KEYS[2:] if entry.get(name) is not None}
    return TrainingPair(
        image_of(image, f"{what}, image"),
        {str(name): image_of(value, f"{what}, {name}") for name, value in labels.items()},
        **others,
    )
