"""Class names in the forms in which they are published: a line for each, or JSON."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pnc_core.errors import ConfigError

FORMS = "one name per line, WordNet ids with names, a JSON list, or a JSON object of names by number or by `id2label`"
_WORDNET = re.compile(r"(n\d{8})(?:[\t ]+(\S.*))?\Z")


def read_class_list(text: str) -> dict[str, Any]:
    """The fields `classes` and `class_aliases` of a spec.

    Text has one class per line. A line `n01443537 goldfish, Carassius auratus`, as in ImageNet's
    LOC_synset_mapping.txt, is the class `n01443537` with other names. JSON holds a list of names, names by number
    (`{"0": "tench"}`, also below `id2label`, as in config.json of Hugging Face), or WordNet ids and names by number
    (`{"0": ["n01440764", "tench"]}`, as in imagenet_class_index.json).

    Args:
        text: The list.

    Raises:
        ConfigError: the text has another form.
    """
    try:
        entries = _of_json(json.loads(text)) if text.lstrip().startswith(("[", "{")) else _of_lines(text)
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"classes: expected class names ({FORMS}), got {text[:40]!r}") from None
    table = {name: others for name, others in entries if others}
    return {"classes": [name for name, _ in entries], **({"class_aliases": table} if table else {})}


Entries = list[tuple[str, list[str]]]
"""Names of classes in the order of the logits, and other names of each class."""


def _of_lines(text: str) -> Entries:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(m[1], [m[2]] if m[2] else []) if (m := _WORDNET.match(line)) else (line, []) for line in lines]


def _of_json(value: Any) -> Entries:
    if isinstance(value, Mapping):
        named = value.get("id2label", value)
        value = [named[key] for key in sorted(named, key=int)]
    return [_entry(item) for item in value]


def _entry(item: Any) -> tuple[str, list[str]]:
    if isinstance(item, str):
        return item, []
    name, *others = item
    if not all(isinstance(text, str) for text in item):
        raise TypeError("expected names")
    return name, list(others)
