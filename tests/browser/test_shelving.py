"""Archive, restore and purge on the pages: the dialog lists the affected rows before they are removed."""

import pytest
from playwright.sync_api import expect

from pnc_client import ApiError, Client
from tests.browser.conftest import Visit
from tests.integration.conftest import Up


def test_a_model_is_archived_restored_and_purged(service: Up, visit: Visit) -> None:
    with Client(service.url) as client:
        client.models.create("unwanted", "to be purged")
        visitor = visit()
        page = visitor.open("/models/unwanted")
        page.get_by_role("button", name="Archive", exact=True).click()
        page.get_by_role("button", name="Restore").click()
        page.get_by_role("button", name="Archive", exact=True).click()
        page.get_by_role("button", name="Purge …").click()
        dialog = page.get_by_role("dialog", name="Purge unwanted")
        expect(dialog).to_contain_text("cannot be undone")
        assert client.models.get("unwanted").archived_at is not None
        dialog.get_by_role("button", name="Purge for good").click()
        page.wait_for_url(service.url + "/")
        expect(page.get_by_text("unwanted")).to_have_count(0)
        with pytest.raises(ApiError, match="was purged on"):
            client.models.get("unwanted")
    assert visitor.complaints == []
