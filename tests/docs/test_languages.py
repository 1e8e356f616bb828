"""Clients that generators make from the OpenAPI document work, in TypeScript and in Go."""

import re

import pytest

from tests.docs.conftest import Read
from tests.unit.docs.pages import DOCS, blocks

pytestmark = pytest.mark.timeout(1200)


def test_generated_clients_attach_predict_and_detach(read: Read) -> None:
    output = read(blocks(DOCS / "other-languages.md", "bash"))
    answers = re.findall(r"^(\d) (\d\.\d\d), generation (\d+)$", output, re.MULTILINE)
    assert [name for name, _, _ in answers] == ["7", "7"]
    assert [int(generation) for _, _, generation in answers] == [2, 4]
