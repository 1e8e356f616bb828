"""A card is somebody else's text: it may have headings and links, and can do nothing."""

import pytest

from app.models.card import first_line
from app.models.card_page import rendered

CARD = """---
license: mit
---

# Digits 0 to 4

Trained on *scans*.

| class | images |
| --- | --- |
| 0 | 178 |

## Limits

[more](https://example.org)
"""


def test_a_card_is_markdown_below_the_page_s_headings() -> None:
    shown = rendered(CARD)
    assert "<h3>Digits 0 to 4</h3>" in shown
    assert "<h4>Limits</h4>" in shown
    assert "<em>scans</em>" in shown
    assert "<td>178</td>" in shown
    assert '<a href="https://example.org" rel="noopener nofollow">more</a>' in shown
    assert "license" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "![picture](https://example.org/track.png)",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html;base64,AAAA)",
        "<javascript:alert(1)>",
        '[x](https://example.org "\\"onclick=\\"alert(1)")',
        "| <b onclick=alert(1)> |\n| --- |\n| x |",
    ],
)
def test_a_card_can_do_nothing(text: str) -> None:
    shown = rendered(text).lower()
    for part in ("<script", "<img", "<b ", 'href="javascript', 'href="data', ' onclick="'):
        assert part not in shown


@pytest.mark.parametrize(
    ("card", "line"),
    [
        (CARD, "Digits 0 to 4"),
        ("plain words", "plain words"),
        ("\n\n  **bold**  \nmore", "bold"),
        ("", ""),
        ("---\nnever closed", "---"),
    ],
)
def test_the_first_line_says_what_it_is(card: str, line: str) -> None:
    assert first_line(card) == line
