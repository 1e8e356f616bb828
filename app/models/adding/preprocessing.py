"""The fields of the form that describe how a network sees an image."""

from markupsafe import Markup
from nicegui import ui

from app.models.adding import fields
from app.models.adding.fields import PREPROCESSING, SCALINGS
from app.web.forms.form import Form
from app.web.frame import button, markup


def preprocessing_fields(form: Form) -> None:
    """Add input size, mean, standard deviation and the rules of resizing to the form."""
    with ui.element("div").classes("form"):
        form.text("input_size", "Input size", "Channels x height x width, such as 3 x 32 x 32.")
        form.text("mean", "Mean", "Of each channel, as in the training script's Normalize.")
        form.text("std", "Standard deviation", "Of each channel; one number stands for all channels.")
    with ui.element("div").classes("actions"):
        markup(Markup("Common values:"), "span").classes("faint")
        for name, values in SCALINGS.items():
            button(name, on_click=lambda _, values=values: form.fill(fields.scaling(*values)))
    with ui.expansion("More about preprocessing").props("dense"), ui.element("div").classes("form"):
        for name, (label, help, choices) in PREPROCESSING.items():
            form.choice(name, label, help, choices)
        form.text("resize_size", "Size before the crop", "Pixels of the shorter side; empty: the input size.")
