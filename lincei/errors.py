"""The one exception whose text a user reads."""

from __future__ import annotations


class LinceiError(Exception):
    """Something a user can act on: what was wrong, where, and what to do.

    Parameters
    ----------
    what : str
        What is wrong, as the beginning of a sentence, without a final period.
    where : str, optional
        The file, model, channel or setting that it concerns.
    what_to_do : str, optional
        A full sentence (or several) that says what to do.

    Examples
    --------
    >>> print(LinceiError("the image is constant", "a.tif", "Check the lamp."))
    a.tif: the image is constant. Check the lamp.
    """

    def __init__(self, what: str, where: str = "", what_to_do: str = "") -> None:
        self.what = what
        self.where = str(where)
        self.what_to_do = what_to_do
        super().__init__(what, where, what_to_do)

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        if not sentence.endswith((".", "?", "!")):
            sentence += "."
        return f"{sentence} {self.what_to_do}".rstrip()


class UsageError(LinceiError):
    """An option or argument is wrong; the command line exits with 2 instead of 1."""


class CancelledError(Exception):
    """The user asked to stop; nothing half-written is left under a final name."""


class LinceiWarning(UserWarning):
    """The result stands, and the user should know something about it."""
