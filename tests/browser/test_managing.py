"""The pages that manage a workspace: webhooks, keys, audit log, settings, aliases, lineage, compare, help."""

import csv
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from pnc_client import ApiError, Client, VersionRejected
from pnc_core.config import NetworkSpec
from tests.browser.conftest import Visit
from tests.browser.steps import choose
from tests.browser.test_signing_in import key_of
from tests.integration.conftest import Up, start_service, stop_service


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, str]]:
    """A service that requires keys and may call this machine, and a key with the scope admin."""
    data = tmp_path_factory.mktemp("locked") / "data"
    secret = key_of(data)
    service = start_service(data, PNC_REQUIRE_KEYS="true", PNC_WEBHOOK_PRIVATE="true")
    yield service, secret
    assert stop_service(service) == 0


class Receiver(http.server.BaseHTTPRequestHandler):
    """Refuses the first message, and takes the others."""

    heard: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(self.headers["webhook-id"])
        self.send_response(500 if len(self.heard) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


def _sign_in(page: Page, url: str, secret: str) -> None:
    page.goto(url + "/sign-in")
    page.fill("#key", secret)
    page.click("button[type=submit]")
    page.wait_for_url(url + "/")


def test_a_webhook_is_added_tested_and_its_delivery_is_sent_again(
    visit: Visit, locked: tuple[Up, str], receiver: str
) -> None:
    service, secret = locked
    visitor = visit(url=service.url)
    page = visitor.page
    _sign_in(page, service.url, secret)
    visitor.open("/webhooks")
    page.get_by_label("Address").fill("ftp://nowhere")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".q-field__messages", has_text="expected")).to_be_visible()
    page.get_by_label("Address").fill(receiver)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".secret")).to_contain_text("whsec_")
    page.get_by_role("link", name=receiver).click()
    page.get_by_role("button", name="Send a test").click()
    row = page.locator(".switchrow", has_text="webhook.test")
    expect(row).to_contain_text("500")
    row.get_by_role("button", name="Send again").click()
    expect(row).to_contain_text("delivered")
    assert len(Receiver.heard) >= 2
    assert len(set(Receiver.heard)) == 1
    page.get_by_role("button", name="Disable").click()
    expect(page.locator(".heading .badge")).to_contain_text("off")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/webhooks")
    expect(page.get_by_text("No webhooks yet")).to_be_visible()
    assert visitor.complaints == []


def test_a_key_is_made_used_and_revoked_and_the_audit_log_tells(visit: Visit, locked: tuple[Up, str]) -> None:
    service, secret = locked
    visitor = visit(url=service.url)
    page = visitor.page
    _sign_in(page, service.url, secret)
    visitor.open("/keys")
    page.get_by_label("Name").fill("Not a name")
    page.get_by_role("button", name="Make the key").click()
    expect(page.locator(".q-field__messages", has_text="expected a letter or digit")).to_be_visible()
    page.get_by_label("Name").fill("robot")
    page.get_by_label("Days").fill("3")
    page.get_by_role("button", name="Make the key").click()
    made = page.locator(".secret code").inner_text()
    with Client(service.url, key=made) as client:
        assert list(client.models.list()) == []
        with pytest.raises(ApiError, match="scope"):
            client.models.create("robots-model")
        page.get_by_role("button", name="Revoke robot").click()
        expect(page.locator(".switchrow", has_text="robot")).to_contain_text("revoked")
        with pytest.raises(ApiError, match="revoked"):
            list(client.models.list())
    visitor.open("/audit")
    refused = page.locator("table.list tr", has_text="create_model")
    expect(refused).to_contain_text("robot")
    expect(refused).to_contain_text("forbidden")
    refused.get_by_role("link", name="robot").click()
    page.wait_for_url("**/audit?key=*")
    expect(page.locator("table.list tbody tr")).to_have_count(1)
    assert visitor.complaints == []


def test_a_reader_sees_neither_keys_nor_the_audit_log(visit: Visit, locked: tuple[Up, str]) -> None:
    service, secret = locked
    with Client(service.url, key=secret) as client:
        reader = client.keys.create("reader", ["read"]).secret
    page = visit(url=service.url).page
    _sign_in(page, service.url, reader)
    for path in ("/keys", "/audit"):
        page.goto(service.url + path)
        expect(page.locator(".problem")).to_contain_text("expected a key with the scope 'admin'")
        expect(page.locator("main .switchrow, main table")).to_have_count(0)


def test_settings_tell_versions_and_storage_and_keep_the_rules(visit: Visit, locked: tuple[Up, str]) -> None:
    service, secret = locked
    visitor = visit(url=service.url)
    page = visitor.page
    _sign_in(page, service.url, secret)
    visitor.open("/settings")
    facts = page.locator(".facts")
    expect(facts.filter(has_text="Keys are required")).to_contain_text("on")
    expect(facts.filter(has_text="pnc-zoo")).to_contain_text("SQLite")
    expect(page.get_by_text("are used; there is no limit.")).to_be_visible()
    page.get_by_label("Days until archived records are purged").fill("30")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved")).to_be_visible()
    visitor.open("/settings")
    expect(page.get_by_label("Days until archived records are purged")).to_have_value("30")
    assert visitor.complaints == []


def test_an_alias_is_set_moved_and_removed_on_the_models_page(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    visitor = visit(url=service.url)
    page = visitor.open("/models/digits-even")
    page.get_by_label("Alias", exact=True).fill("9wrong")
    page.get_by_role("button", name="Set the alias").click()
    expect(page.locator(".q-field__messages", has_text="expected a letter")).to_be_visible()
    page.get_by_label("Alias", exact=True).fill("stable")
    page.get_by_role("button", name="Set the alias").click()
    expect(page.locator(".switchrow", has_text="stable")).to_contain_text("version 1")
    with Client(service.url) as client:
        assert client.models.find("digits-even@stable").number == 1
        page.get_by_role("button", name="Remove the alias stable").click()
        expect(page.locator(".switchrow", has_text="stable")).to_have_count(0)
        assert "stable" not in client.models.get("digits-even").aliases
    assert visitor.complaints == []


def test_a_rejected_version_says_why_in_its_row(visit: Visit, filled: tuple[Up, dict[str, str]], brought: Path) -> None:
    service, _ = filled
    spec = json.loads((brought / "digits-low.json").read_text())
    with Client(service.url) as client:
        wrong = NetworkSpec(**{**spec, "classes": spec["classes"][:4]})
        with pytest.raises(VersionRejected):
            client.models.push("odd-one", wrong, brought / "digits-low.safetensors").wait()
    page = visit(url=service.url).open("/?search=odd-one")
    expect(page.locator("table.list .why")).to_contain_text("expected")
    page.goto(f"{service.url}/models/odd-one")
    expect(page.locator("table.list .why")).to_contain_text("expected")


def test_the_lineage_leads_from_a_model_to_its_job_module_and_deployment(
    visit: Visit, filled: tuple[Up, dict[str, str]]
) -> None:
    service, pages = filled
    visitor = visit(url=service.url)
    for name in ("job", "module", "deployment"):
        page = visitor.open("/models/digits-low")
        page.locator(f'.graph a[href="{pages[name]}"]').click()
        page.wait_for_url(f"**{pages[name]}")
    assert visitor.complaints == []


def test_jobs_are_ticked_compared_and_saved_as_csv(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    visitor = visit(url=service.url)
    page = visitor.open("/jobs")
    compare = page.get_by_role("button", name=re.compile("^Compare"))
    expect(compare).to_be_disabled()
    for box in page.locator(".pick").all():
        box.check()
    expect(compare).to_have_text("Compare 2")
    compare.click()
    page.wait_for_url("**/compare?ids=job_*")
    expect(page.locator("svg.over .series")).to_have_count(2)
    expect(page.locator("tr.differs", has_text="preset")).to_have_count(1)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download as CSV").click()
    rows = list(csv.reader(downloading.value.path().read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["property", "A", "B"]
    assert {name: values for name, *values in rows}["preset"] == ["fast", "joint"]
    assert visitor.complaints == []


def test_ids_and_words_are_at_hand(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, pages = filled
    visitor = visit(url=service.url)
    page = visitor.open(pages["module"])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    whole = pages["module"].rpartition("/")[2]
    page.get_by_role("button", name=f"Copy id {whole}").click()
    assert page.evaluate("navigator.clipboard.readText()") == whole
    for word in ("position", "tail", "locality", "head", "thin", "full"):
        term = page.locator(f'.term[href="/help#{word}"]').first
        assert len(str(term.get_attribute("title"))) > 30
    page.locator('.term[href="/help#tail"]').first.click()
    page.wait_for_url("**/help#tail")
    expect(page.locator("#tail")).to_contain_text("layers of the source")
    assert visitor.complaints == []


def test_an_unknown_address_is_a_page(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    page = visit(url=service.url).page
    for path, text in (("/nowhere", "This page does not exist"), ("/models/nowhere", "This model does not exist")):
        answer = page.goto(service.url + path)
        assert answer is not None
        assert answer.status == 404
        expect(page.get_by_role("heading", name=text)).to_be_visible()
        page.get_by_role("link", name="Models").first.click()
        page.wait_for_url(service.url + "/")


def test_only_the_chosen_kind_of_message_is_offered(visit: Visit, filled: tuple[Up, dict[str, str]]) -> None:
    service, _ = filled
    page = visit(url=service.url).open("/webhooks")
    choose(page, "Events", "job.succeeded")
    expect(page.locator(".q-chip", has_text="job.succeeded")).to_be_visible()
