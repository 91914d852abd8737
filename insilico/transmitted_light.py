"""The transmitted-light channel of an image: which one it is, and whether it suits a model."""

from __future__ import annotations

from lincei.errors import LinceiError, UsageError
from lincei.image import Image

TRANSMITTED = ("phase contrast", "bright field", "DIC")
_NAMES = ("phase", "brightfield", "bright field", "dic", "transmitted", "trans", "tl", "bf", "ph")


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
        if channel in names:
            return names.index(channel)
        if channel.isdigit() and int(channel) < len(names):
            return int(channel)
        raise UsageError(f"there is no channel {channel!r}", where, f"There are: {listed}.")
    if len(names) == 1:
        return 0
    words = [[i for i, name in enumerate(names) if _is_transmitted(name)]]
    if len(words[0]) == 1:
        return words[0][0]
    raise LinceiError(
        f"it has {len(names)} channels, and which one is the transmitted-light image is not clear",
        where,
        f"Say so with --channel; there are: {listed}.",
    )


def _is_transmitted(name: str) -> bool:
    tokens = name.lower().replace("_", " ").replace("-", " ").split()
    return any(word in tokens or (len(word) > 4 and word in name.lower()) for word in _NAMES)


def check_modality(image: Image, expected: str, model: str) -> None:
    """Refuse an image that is known to be of another modality than the model's.

    Raises
    ------
    LinceiError
        It names both, and what to do when the image's metadata are wrong.
    """
    if image.modality is not None and image.modality != expected:
        raise LinceiError(
            f"this is a {image.modality} image, and the model {model!r} expects {expected}",
            image.source or image.name,
            f"Choose a model for {image.modality}, or pass --modality {expected!r} if the image's own "
            "information is wrong.",
        )
