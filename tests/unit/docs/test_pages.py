"""What the documentation prints exists: commands, options, settings, files, bytes."""

import hashlib
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from standardwebhooks import Webhook
from torch import nn
from typer.core import TyperGroup
from typer.main import get_command

from app.cli import app as pnc
from app.settings import Settings
from pnc_core.identity import fingerprint
from pnc_core.module.bundle import Bundle, read_bundle
from pnc_core.module.manifest import Manifest
from tests.unit.docs.pages import DOCS, PAGES, ROOT, block, lines

WORDS = re.compile(r"(?:^|[|;&(]\s*|\s)pnc (?P<rest>[a-z][^|;&#)`]*)")
VARIABLE = re.compile(r"\bPNC_[A-Z_]*[A-Z]\b")
NO_SETTINGS = {"PNC_URL", "PNC_KEY", "PNC_CHROMIUM", "PNC_TEST_SERVICES"}
"""Of the command line and of the tests."""


def _commands(page: Path) -> list[str]:
    return [found["rest"].strip() for line in lines(page) for found in WORDS.finditer(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_has_its_name_and_options(page: Path) -> None:
    for text in _commands(page):
        words = shlex.split(text)
        command: Any = get_command(pnc)
        while isinstance(command, TyperGroup):
            assert words, f"{page.name}: pnc {text}"
            assert words[0] in command.commands or words[0].startswith("-"), f"{page.name}: pnc {text}"
            if words[0].startswith("-"):
                break
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help", "--install-completion"}, f"{page.name}: pnc {text}"


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(_commands(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_is_one(page: Path) -> None:
    known = {f"PNC_{name.upper()}" for name in Settings.model_fields} | NO_SETTINGS
    known |= {f"{name}_FILE" for name in known - NO_SETTINGS}
    assert set(VARIABLE.findall(page.read_text())) <= known


def test_every_setting_is_on_a_page() -> None:
    said = " ".join(page.read_text() for page in PAGES)
    assert [name for name in Settings.model_fields if f"PNC_{name.upper()}" not in said] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_that_is_named_exists(page: Path) -> None:
    for line in lines(page):
        for name in re.findall(r"python (\S+\.py)", line):
            assert (ROOT / name).exists(), f"{page.name}: {line}"


def _run(page: str, name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(block(DOCS / page, name), names)
    return names


def test_the_bundle_of_the_page_is_byte_for_byte_the_library_s(tmp_path: Path) -> None:
    made = _run("bundle.md", "bytes")
    raw: bytes = made["bundle"]
    tensors = {
        "adapter.weight": torch.tensor([[0.5]]),
        "adapter.bias": torch.tensor([0.0]),
        "head.scale": torch.tensor(1.0),
        "head.offset": torch.tensor(0.0),
        "kept.conv": torch.tensor([0, 2], dtype=torch.int32),
    }
    assert Bundle(Manifest.from_json(made["canonical"](made["manifest"])), tensors).to_bytes() == raw
    (tmp_path / "page.safetensors").write_bytes(raw)
    assert read_bundle(tmp_path / "page.safetensors").to_bytes() == raw
    text = (DOCS / "bundle.md").read_text()
    for printed in (f"{len(raw):,}", raw[:8].hex(" "), raw[-24:].hex(" "), hashlib.sha256(raw).hexdigest()):
        assert f"`{printed}`" in text


def test_the_fingerprint_of_the_page_is_the_library_s() -> None:
    network = nn.Module()
    network.fc = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.fc.weight.copy_(torch.tensor([[0.5, -1.0]]))
    assert _run("bundle.md", "fingerprint")["fingerprint"] == fingerprint(network)
    assert f"`{fingerprint(network)}`" in (DOCS / "bundle.md").read_text()


def test_the_receiver_of_the_page_verifies() -> None:
    secret, body, now = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", '{"type":"webhook.test","data":{}}', datetime.now(UTC)
    headers = {"webhook-id": "dlv_1", "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = Webhook(secret).sign("dlv_1", now, body)
    assert _run("webhooks.md", "verify")["receive"](secret, headers, body.encode()) == "webhook.test: {}"
