"""Requests that can be copied: each names this deployment, and a key only where one is needed."""

import pytest

from app.deployments.snippets import shown, snippets

BASE = "https://zoo.example:8443"


@pytest.mark.parametrize("with_key", [True, False])
def test_every_request_names_the_deployment_and_the_key(with_key: bool) -> None:
    found = snippets(BASE, "digits-low", (1, 8, 8), with_key=with_key)
    assert list(found) == ["curl", "Python", "tritonclient", "JavaScript"]
    for language, text in found.items():
        assert "digits-low" in text
        assert "zoo.example:8443" in text
        assert ("Authorization" in text or "PNC_API_KEY" in text) == with_key, language
    for language in ("Python", "tritonclient"):
        compile(found[language], language, "exec")
    assert "ssl=True" in found["tritonclient"]


def test_a_request_is_shown_as_text() -> None:
    assert "<script>" not in shown("<script>", "curl")
