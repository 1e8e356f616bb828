"""Fields of a form by name, each with its help; an error stands at its field until the field changes."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui


class Form:
    """Makes fields, and reads and fills them."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def text(self, name: str, label: str, help: str, *, is_long: bool = False) -> Any:
        """A field for text.

        Args:
            name: Key of the field.
            label: Its visible name.
            help: A sentence below the field.
            is_long: Whether it has several lines.
        """
        field = ui.textarea(label).props("autogrow input-class=capped") if is_long else ui.input(label)
        return self._kept(name, label, help, field)

    def choice(self, name: str, label: str, help: str, options: Sequence[str]) -> Any:
        """A field for one of a few values; the first is the default."""
        return self._kept(name, label, help, ui.select(list(options), label=label, value=options[0]))

    def texts(self) -> dict[str, str]:
        """The text of every field."""
        return {name: str(field.value or "") for name, field in self.fields.items()}

    def fill(self, texts: Mapping[str, str]) -> None:
        """Set fields, and remove their errors; a field of choices keeps its value where the text is empty."""
        for name, text in texts.items():
            field = self.fields[name]
            field.set_value(text if text or not hasattr(field, "options") else field.options[0])
            field.error = None

    def clear(self) -> None:
        """Empty every field, and remove all errors."""
        self.fill(dict.fromkeys(self.fields, ""))

    def complain(self, messages: Mapping[str, str]) -> None:
        """Put messages at their fields."""
        for name, message in messages.items():
            self.fields[name].error = message

    @property
    def faults(self) -> dict[str, str]:
        """Messages that stand at fields."""
        return {name: field.error for name, field in self.fields.items() if field.error}

    def _kept(self, name: str, label: str, help: str, field: Any) -> Any:
        field.props(f'outlined dense options-dense bottom-slots aria-label="{label}"').props["hint"] = help

        def changed() -> None:
            field.error = None

        field.on_value_change(changed)
        self.fields[name] = field
        return field
