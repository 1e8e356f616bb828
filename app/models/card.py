"""What a model's card says to people, wherever it is shown."""

import re

_HEAD_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""What cards of other zoos begin with: YAML for machines."""


def prose(card: str) -> str:
    """The card without what is meant for machines."""
    return _HEAD_MATTER.sub("", card)


def first_line(card: str) -> str:
    """What a card says in one line: its first one that is not empty, without marks."""
    lines = (line.strip(" #*_\t\r") for line in prose(card).split("\n"))
    return next((line for line in lines if line), "")
