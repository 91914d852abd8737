"""Controls for the fields of an `Options` class: names, help, units, limits and choices come from there."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit, Select, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget
from superqt import QCollapsible

from lincei.options import Options

OptionsT = TypeVar("OptionsT", bound=Options)

# What a number that may be left out shows at the lower end of its range, which then stands for None.
LEFT_OUT = "not given"
_LARGEST = 1e9


class OptionForm(Generic[OptionsT]):
    """Controls for some fields of an options class.

    Parameters
    ----------
    options_class : type
        The class.
    form : QFormLayout
        Where the controls go; those of advanced fields go below it, behind "More".
    names : sequence of str
        The fields, in their order.
    labels : mapping of str to str, optional
        Names for a person; made from the fields' names when left out.
    left_out : mapping of str to str, optional
        What a number that may be left out shows then, such as ``"from the layer"``.
    choices : mapping of str to sequence of str, optional
        Choices that the class does not know, such as names of models.
    behind_more : sequence of str, optional
        Fields that go behind "More" although they are not advanced.
    """

    def __init__(
        self,
        options_class: type[OptionsT],
        form: QFormLayout,
        names: Sequence[str],
        *,
        labels: Mapping[str, str] | None = None,
        left_out: Mapping[str, str] | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
        behind_more: Sequence[str] = (),
    ) -> None:
        self._class = options_class
        self._hints = typing.get_type_hints(options_class)
        fields = {field.name: field for field in dataclasses.fields(options_class)}
        self._fields = {name: fields[name] for name in names}
        self.widgets: dict[str, ValueWidget[Any]] = {}
        self.rows: dict[str, QLabel] = {}
        self.more: QCollapsible | None = None
        more_form: QFormLayout | None = None
        for name, field in self._fields.items():
            widget = self._control(
                field, (left_out or {}).get(name, LEFT_OUT), tuple((choices or {}).get(name, ()))
            )
            self.widgets[name] = widget
            label = QLabel((labels or {}).get(name) or _readable(name, field.metadata["unit"]))
            label.setToolTip(field.metadata["help"])
            self.rows[name] = label
            target = form
            if field.metadata["advanced"] or name in behind_more:
                if more_form is None:
                    self.more = QCollapsible("More")
                    self.more.toggleButton().setToolTip("Options that are seldom changed.")
                    content = QWidget()
                    more_form = QFormLayout(content)
                    self.more.setContent(content)
                target = more_form
            target.addRow(label, widget.native)
        if self.more is not None:
            form.addRow(self.more)
            self.more.collapse(animate=False)  # its content is shown otherwise

    def set(self, name: str, value: Any) -> None:
        """Show a value; None leaves a number or a choice out."""
        widget = self.widgets[name]
        if isinstance(widget, (FloatSpinBox, SpinBox)) and value is None:
            widget.value = widget.min
        elif isinstance(widget, ComboBox) and value is None:
            widget.value = LEFT_OUT
        elif isinstance(widget, LineEdit):
            widget.value = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value or "")
        else:
            widget.value = value

    def values(self) -> dict[str, Any]:
        """Return the fields' values by name, as the options class takes them."""
        return {name: self._value(name) for name in self._fields}

    def options(self, **others: Any) -> OptionsT:
        """Return the options.

        Parameters
        ----------
        **others
            Fields that are not in the form, or go before it.

        Raises
        ------
        UsageError
            When a value is out of range; the sentence names it.
        """
        return self._class.from_mapping({**self.values(), **others})

    def _value(self, name: str) -> Any:
        field, widget, value = self._fields[name], self.widgets[name], self.widgets[name].value
        hint, optional = _without_none(self._hints[name])
        if isinstance(widget, (FloatSpinBox, SpinBox)):
            return None if optional and value <= widget.min else value
        if isinstance(widget, ComboBox):
            return None if optional and value == LEFT_OUT else value
        if isinstance(widget, Select):
            return tuple(value)
        if isinstance(widget, LineEdit):
            text = str(value).strip()
            if typing.get_origin(hint) is tuple:
                parts = [part.strip() for part in text.split(",") if part.strip()]
                element = typing.get_args(hint)[0]
                return tuple(_number(part, element, field.name) for part in parts)
            return None if optional and not text else text
        return value

    def _control(
        self, field: dataclasses.Field[Any], left_out: str, choices: tuple[str, ...]
    ) -> ValueWidget[Any]:
        hint, optional = _without_none(self._hints[field.name])
        metadata, tooltip = field.metadata, field.metadata["help"]
        default: Any = field.default
        choices = choices or metadata["choices"]
        is_tuple = typing.get_origin(hint) is tuple
        widget: ValueWidget[Any]
        if is_tuple and choices:
            chosen = [value for value in default if value in choices]
            widget = Select(value=chosen, choices=choices, tooltip=tooltip)
            widget.native.setMaximumHeight(22 * min(len(choices), 6) + 8)
        elif choices:
            offered = (LEFT_OUT, *choices) if optional else choices
            value = default if default in offered else offered[0]
            widget = ComboBox(value=value, choices=offered, tooltip=tooltip)
        elif hint is bool:
            widget = CheckBox(value=default, text="", tooltip=tooltip)
        elif hint is float:
            low = metadata["minimum"] if metadata["minimum"] is not None else (metadata["above"] or 0.0)
            high = metadata["maximum"] if metadata["maximum"] is not None else _LARGEST
            if optional:
                # One step below what is allowed stands for "left out".
                low = min(low, 0.0) if metadata["above"] is not None or low > 0 else low - 0.01
            widget = FloatSpinBox(
                value=low if default is None else default, min=low, max=high, tooltip=tooltip
            )
            # Hundredths are fine enough for minutes and for percentiles.
            widget.native.setDecimals(2 if metadata["unit"] == "min" or high == 100 else 4)
            # Again, for it was rounded to two decimals: a learning rate of 0.001 to none.
            widget.value = low if default is None else default
            widget.native.setSingleStep(0.01 if high <= 2 else 0.1)
            if optional:
                widget.native.setSpecialValueText(left_out)
        elif hint is int:
            low = int(metadata["minimum"] or 0)
            high = int(metadata["maximum"]) if metadata["maximum"] is not None else 10**9
            widget = SpinBox(value=default, min=low, max=high, tooltip=tooltip)
        else:
            text = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default or "")
            widget = LineEdit(value=text, tooltip=tooltip)
        return widget


def _number(text: str, element: Any, name: str) -> Any:
    """Return a part of a list as what the field holds; what is no number is left to the options' check."""
    try:
        return element(text)
    except ValueError:
        from lincei.errors import UsageError

        raise UsageError(f"{_readable(name, '')}: {text!r} is not a number") from None


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None was allowed."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return members[0], len(members) < len(typing.get_args(hint))
    return hint, False


def _readable(name: str, unit: str) -> str:
    """Return a field's name as a person reads it: ``pixel_size_um`` -> ``Pixel size (um)``."""
    words = name.removesuffix(f"_{unit}") if unit else name
    text = words.replace("_", " ").capitalize()
    return f"{text} ({unit})" if unit else text
