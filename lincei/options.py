"""Options of a job: frozen, validated, JSON-able dataclasses.

Command-line flags, macro keys, widgets, resume hashes and provenance all derive from their fields, so
an option is named, described and checked in one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from lincei.errors import UsageError

OptionsT = TypeVar("OptionsT", bound="Options")

# What runs networks, in the order in which it is tried; the classes are in `lincei.engine`, which takes
# longer to import.
ENGINE_NAMES = ("openvino", "onnxruntime", "tensorflow")


def option(
    default: Any,
    help_text: str,
    *,
    unit: str = "",
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    advanced: bool = False,
) -> Any:
    """Declare a field of an `Options` class together with what every front end needs to offer it.

    Parameters
    ----------
    default : object
        The value when the user says nothing. Sequences are stored as tuples.
    help_text : str
        One sentence for a person; shown by ``--help`` and as a tooltip.
    unit : str, optional
        Physical unit, such as ``"um"``.
    choices : sequence of str, optional
        The values that are allowed (each element's, for a tuple).
    minimum, maximum : float, optional
        Inclusive limits.
    above : float, optional
        Exclusive lower limit.
    advanced : bool, optional
        True hides the option behind "more" in windows; the command line shows all.
    """
    metadata = {
        "help": help_text,
        "unit": unit,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "advanced": advanced,
    }
    if isinstance(default, list):
        default = tuple(default)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of all option classes: checks its fields when it is made.

    Raises
    ------
    UsageError
        When a value has the wrong type, is out of range or not among the choices; it names the flag,
        the value and what is allowed.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _coerced(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            _check_limits(field, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build options from names and values (keyword arguments, JSON, macro keys)."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
                raise UsageError(f"there is no option {name!r}", "", hint)
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dict, in the order of their declaration."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in dataclasses.fields(self)
        }

    def hash(self) -> str:
        """Return a SHA-256 of the fields: equal options have equal hashes, in any process."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def resolve_options(
    cls: Callable[..., OptionsT], options: OptionsT | None, overrides: Mapping[str, Any]
) -> OptionsT:
    """Merge ``options`` and keyword overrides, as every job does: ``job(data, options, **overrides)``."""
    options_class = typing.cast("type[OptionsT]", cls)
    if options is not None and not isinstance(options, options_class):
        raise TypeError(f"options must be {options_class.__name__}, not {type(options).__name__}")
    base = {} if options is None else {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    return options_class.from_mapping({**base, **overrides})


def flag_name(field_name: str) -> str:
    """Return the command-line flag of a field: ``pixel_size_um`` -> ``--pixel-size-um``."""
    return "--" + field_name.replace("_", "-")


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """Check ``value`` against its annotation; ints become floats and lists become tuples where asked."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        if value is None and type(None) in members:
            return None
        errors: list[UsageError] = []
        for member in members:
            if member is type(None):
                continue
            try:
                return _coerced(name, value, member)
            except UsageError as error:
                errors.append(error)
        raise errors[0]
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UsageError(f"{flag_name(name)} needs a list, not {value!r}")
        element = typing.get_args(hint)[0]
        return tuple(_coerced(name, item, element) for item in value)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise UsageError(f"{flag_name(name)} needs a number, not {value!r}")
        return float(value)
    if hint is int:
        # NumPy's integers are whole numbers too, but not JSON-able.
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise UsageError(f"{flag_name(name)} needs a whole number, not {value!r}")
        return int(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        kind = {bool: "true or false", str: "text"}.get(hint, hint.__name__)
        raise UsageError(f"{flag_name(name)} needs {kind}, not {value!r}")
    return value


def _check_limits(field: dataclasses.Field[Any], value: Any) -> None:
    metadata = field.metadata
    if not metadata or value is None:
        return
    flag = flag_name(field.name)
    for item in value if isinstance(value, tuple) else (value,):
        if metadata["choices"] and item not in metadata["choices"]:
            raise UsageError(f"{flag} is {item!r}", "", f"Choose from: {', '.join(metadata['choices'])}.")
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            low, high, above = metadata["minimum"], metadata["maximum"], metadata["above"]
            if item != item or (low is not None and item < low) or (high is not None and item > high):
                allowed = " and ".join(
                    part
                    for part in (
                        f"at least {low:g}" if low is not None else "",
                        f"at most {high:g}" if high is not None else "",
                    )
                    if part
                )
                raise UsageError(f"{flag} is {item:g}", "", f"It must be {allowed or 'a number'}.")
            if above is not None and item <= above:
                raise UsageError(f"{flag} is {item:g}", "", f"It must be above {above:g}.")
