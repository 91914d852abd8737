"""The transmitted-light channel of an image: which one it is, and whether it suits a model."""

from __future__ import annotations

from collections.abc import Sequence

from lincei.errors import LinceiError, UsageError
from lincei.image import Image

TRANSMITTED = ("phase contrast", "bright field", "DIC")
_NAMES = ("phase", "brightfield", "bright field", "transmitted")
_SHORT_NAMES = ("dic", "trans", "tl", "bf", "ph")  # as a part of a word they may mean anything


def transmitted_channel(image: Image, channel: str | None = None) -> int:
    """Return the index of the transmitted-light channel.

    Parameters
    ----------
    image : Image
        Gray, one channel or several.
    channel : str, optional
        Its name or number (from 0), where the user says which.

    Raises
    ------
    LinceiError
        When the image is RGB, or it is not clear which channel is meant.
    UsageError
        When there is no such channel.
    """
    where = image.source or image.name
    if image.rgb:
        raise LinceiError(
            "this is a color (RGB) image, and a gray transmitted-light image is needed",
            where,
            "Export it from the microscope's software as gray, without a color palette.",
        )
    names = list(image.channel_names) or [f"channel {i}" for i in range(image.shape[1])]
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    if channel is not None:
        # A name goes before a number, and its exact spelling before another in upper and lower case.
        for spelled, wanted in ((names, channel), ([name.casefold() for name in names], channel.casefold())):
            if wanted in spelled:
                return spelled.index(wanted)
        if channel.isdecimal() and int(channel) < len(names):
            return int(channel)
        raise UsageError(f"there is no channel {channel!r}", where, f"There are: {listed}.")
    if len(names) == 1:
        return 0
    recognized = [i for i, name in enumerate(names) if _is_transmitted(name)]
    if len(recognized) == 1:
        return recognized[0]
    raise LinceiError(
        f"it has {len(names)} channels, and which one is the transmitted-light image is not clear",
        where,
        f"Say so with --channel; there are: {listed}.",
    )


def _is_transmitted(name: str) -> bool:
    text = name.lower().replace("_", " ").replace("-", " ")
    return any(word in text for word in _NAMES) or any(word in text.split() for word in _SHORT_NAMES)


def check_modality(image: Image, expected: Sequence[str], model: str) -> None:
    """Refuse an image that is known to be of another modality than the model's.

    Parameters
    ----------
    image : Image
        Its modality may be unknown.
    expected : sequence of str
        The modalities that the model learned from.
    model : str
        Its name.

    Raises
    ------
    LinceiError
        It names both, and what to do when the image's metadata are wrong.
    """
    if image.modality is not None and image.modality not in expected:
        other = (
            f"Choose a model for {image.modality}"
            if image.modality in TRANSMITTED
            else "Take the transmitted-light image of the same field"
        )
        raise LinceiError(
            f"this is a {image.modality} image, and the model {model!r} expects {' or '.join(expected)}",
            image.source or image.name,
            f"{other}, or pass --modality {expected[0]!r} if the image's own information is wrong.",
        )
