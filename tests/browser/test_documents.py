"""`/docs` and `/redoc` in Chromium, without requests to other hosts and with their content security policy."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Visit
from tests.integration.conftest import Up


def swagger(page: Page) -> None:
    """The page lists the operations, and can run one."""
    expect(page.locator(".opblock").first).to_be_visible()
    assert page.locator(".opblock").count() > 40
    page.locator("#operations-health-healthz .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")


def redoc(page: Page) -> None:
    """The page lists the operations, and its search, which runs in a web worker, finds one."""
    expect(page.get_by_role("heading", name="Model-zoo cloning service")).to_be_visible()
    page.get_by_placeholder("Search...").fill("rollback")
    expect(page.locator('[data-role="search:results"] li').first).to_be_visible()


@pytest.mark.parametrize(("path", "use"), [("/docs", swagger), ("/redoc", redoc)])
@pytest.mark.timeout(300)
def test_documents_are_shown_without_any_other_host(
    visit: Visit, service: Up, path: str, use: Callable[[Page], None]
) -> None:
    visitor = visit(url=service.url)
    page, elsewhere = visitor.page, set()

    def answer(route: Route) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(service.url).netloc:
            elsewhere.add(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/*", answer)
    page.goto(service.url + path)
    use(page)
    page.wait_for_load_state("networkidle")
    assert elsewhere == set()
    assert visitor.complaints == []
