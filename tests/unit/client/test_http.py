"""What a request is made of, and what is done when it fails."""

import pytest

from app.client import ApiError, Client, InvalidName
from app.client.http import path_of
from tests.unit.client.breaking import Breaking


@pytest.mark.parametrize("name", ["digits#3", "digits?archived=true", "digits%2F", "digits;x"])
def test_a_name_with_a_mark_in_it_is_no_other_resource(client: Client, name: str) -> None:
    client.models.create("digits")
    with pytest.raises(ApiError, match="not_found"):
        client.models.archive(name)
    assert [model.name for model in client.models.list()] == ["digits"]


@pytest.mark.parametrize("name", ["", ".", "..", "x/../digits", "digits/versions/1"])
def test_a_name_that_leads_elsewhere_is_not_sent(client: Client, line: Breaking, name: str) -> None:
    with pytest.raises(InvalidName, match="expected a name or an id"):
        client.models.archive(name)
    assert line.requests == []


def test_a_path_keeps_what_names_may_hold() -> None:
    assert path_of("models", "a.b_c-1", "versions", 3) == "/v1/models/a.b_c-1/versions/3"
    assert path_of("models", "a@1 +é") == "/v1/models/a@1%20%2B%C3%A9"
