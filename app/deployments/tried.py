"""An image on a deployment's page, beside the answers of the sets of modules that predicted it."""

import base64
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from app.web.drawing import bars
from app.web.html import percent, problem

_MOST_SHOWN = 4 * 1024**2
"""Larger images, in bytes, are not shown beside their predictions."""
_TOP = 5
"""Number of classes that are shown for a prediction."""


def tried(image: bytes, answers: Sequence[dict[str, Any]], seconds: float) -> Markup:
    """The image, and the predictions of the target alone, of the attached modules, and of the canary if there is one.

    Args:
        image: Bytes of the image file.
        answers: Predictions or problem documents, in this order.
        seconds: Time of all predictions together.
    """
    fault = next((answer for answer in answers if "classes" not in answer), None)
    if fault is not None:
        return problem(str(fault.get("detail", "no answer")))
    kind = "png" if image.startswith(b"\x89PNG") else "webp" if image[8:12] == b"WEBP" else "jpeg"
    picture = Markup('<p class="faint">The image is too large to show.</p>')
    if len(image) <= _MOST_SHOWN:
        picture = Markup('<img alt="The image that was tried" src="data:image/{};base64,{}">').format(
            kind, base64.b64encode(image).decode()
        )
    count = len(answers[1]["modules"])
    name = f"With {count} module{'s' if count != 1 else ''}" if count else "With modules (none attached)"
    sides = zip(("Target alone", name, "Canary"), answers, strict=False)
    parts = Markup("").join(_side(title, answer) for title, answer in sides)
    number = {2: "Both", 3: "All three"}[len(answers)]
    note = f"{number} predictions took {seconds * 1000:.0f} ms together, generation {answers[1]['generation']}"
    return Markup('<div class="tried">{}{}</div><p class="faint">{}</p>').format(picture, parts, note)


def _side(name: str, answer: dict[str, Any]) -> Markup:
    best = answer["classes"][0]
    rows = [(c["name"], c["probability"], percent(c["probability"])) for c in answer["classes"][:_TOP]]
    return Markup("<div><h3>{}: <strong>{}</strong></h3>{}</div>").format(name, best["name"], bars(rows, name))
