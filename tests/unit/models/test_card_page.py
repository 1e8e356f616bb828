"""A card is somebody else's text: it may have headings and links, and can do nothing."""

import time

import pytest

from app.models.card import first_line
from app.models.card_page import rendered
from pnc_client.schemas.models import MAX_DESCRIPTION

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


def _filled(part: str) -> str:
    return (part * MAX_DESCRIPTION)[:MAX_DESCRIPTION]


_WIDE = "|".join("a" * 50) + "\n" + "|".join("-" * 50) + "\n"


@pytest.mark.parametrize(
    "card",
    [
        *map(_filled, ("*a", "a* ", "*a _b\n", "**a*", "*a**", "[", "![", "[a](", "[a](<b", "](", "- ", "> ", "<a ")),
        *map(_filled, ("[a]: ", "x*** ", "~~a", "|a", "\\", "&", "<http://", "1. ", "a**b_c", '[a](b "', "`` ` ")),
        "".join("`" * length + " " for length in range(1, 140)),
        "".join("  " * depth + "- a\n" for depth in range(98)),
        (_WIDE + "a\n" * 100)[:MAX_DESCRIPTION],
    ],
    ids=lambda card: card[:6],
)
def test_no_card_holds_a_thread_for_long(card: str) -> None:
    began = time.thread_time()
    rendered(card)
    assert time.thread_time() - began < 2


@pytest.mark.parametrize(
    "card",
    [
        _WIDE + "<b>\n" * 2000,
        "> |" + "a|" * 400 + "\n> |" + "-|" * 400 + "\n" + "> <b>\n" * 1000,
        "*a" * MAX_DESCRIPTION + "<b>",
    ],
    ids=["rows that are filled up", "in a quotation", "longer than a card may be"],
)
def test_a_card_that_would_take_seconds_is_shown_as_it_was_written(card: str) -> None:
    began = time.thread_time()
    shown = rendered(card)
    assert time.thread_time() - began < 2
    assert shown.startswith("<pre>")
    assert shown.unescape() == f"<pre>{card}</pre>"
    assert "<b>" not in shown


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
