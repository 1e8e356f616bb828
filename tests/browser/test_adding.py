"""The page that adds a model: files are read in the browser, checked, and sent only at the end."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from playwright.sync_api import Page, Request, expect

from pnc_client import Client
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network
from pnc_core.networks.classes import CIFAR10
from tests.browser.conftest import SCHEMES, SCREENSHOTS, Visit
from tests.browser.steps import drop
from tests.integration.conftest import Up, start_service, stop_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A zoo of this module alone: other tests begin with an empty one."""
    service = start_service(tmp_path_factory.mktemp("adding") / "data")
    yield service
    assert stop_service(service) == 0


def cifar_network(depth: int) -> torch.nn.Module:
    """A ResNet for CIFAR-10 with random weights."""
    scale = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    spec = NetworkSpec(architecture=f"cifar/resnet{depth}", classes=CIFAR10, input_size=(3, 32, 32), **scale)
    torch.manual_seed(depth)
    return build_network(spec)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as training scripts save them, and files that are none."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for depth in (20, 56):
        wrapped = {f"module.{name}": tensor for name, tensor in cifar_network(depth).state_dict().items()}
        saved = {"state_dict": wrapped, "best_prec1": 91.7, "epoch": 200}
        torch.save(saved, folder / f"resnet{depth}.th", _use_new_zipfile_serialization=False)
        torch.save(saved, folder / f"resnet{depth}.pth")
    (folder / "notes.pth").write_text("not weights")
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    (folder / "alone.json").write_text("{}")
    return folder


def _posts(page: Page) -> list[Request]:
    """The requests with a body that the page sends from now on."""
    found: list[Request] = []
    page.on("requestfinished", lambda request: found.append(request) if request.method == "POST" else None)
    return found


def _largest(requests: list[Request]) -> int:
    """Bytes of the largest body."""
    return max(int(request.all_headers()["content-length"]) for request in requests)


def _field(page: Page, label: str) -> str:
    return page.get_by_label(label, exact=True).input_value()


def _expect_field(page: Page, label: str, value: str) -> None:
    expect(page.get_by_label(label, exact=True)).to_have_value(value)


def test_a_checkpoint_tells_its_architecture_and_is_sent_only_at_the_end(
    visit: Visit, service: Up, files: Path
) -> None:
    visitor = visit()
    page = visitor.open("/add")
    posts = _posts(page)
    drop(page, files / "resnet20.th")
    expect(page.locator(".fileline.good")).to_contain_text("resnet20.th")
    expect(page.locator(".fileline.good")).to_contain_text("10 classes")
    _expect_field(page, "Architecture", "cifar/resnet20")
    _expect_field(page, "Mean", "0.485, 0.456, 0.406")
    assert _field(page, "Classes").split() == list(CIFAR10)
    assert _field(page, "Name of the model") == "resnet20"
    assert _largest(posts) < 50_000 < (files / "resnet20.th").stat().st_size
    page.get_by_label("Licence of the weights").fill("MIT")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".facts .badge.good").first).to_have_text(re.compile("ready"))
    assert _largest(posts) > 1_000_000
    with Client(service.url) as client:
        version = client.models.find("resnet20@1")
    assert (version.spec.architecture, version.licence) == ("cifar/resnet20", "MIT")
    assert version.spec.classes == CIFAR10
    assert visitor.complaints == []


def test_a_new_file_clears_what_the_earlier_one_filled_in(visit: Visit, service: Up, files: Path) -> None:
    page = visit().open("/add")
    drop(page, files / "resnet56.pth")
    expect(page.locator(".fileline.good")).to_contain_text("resnet56.pth")
    page.get_by_label("Licence of the weights").fill("of the other file")
    page.get_by_label("Mean", exact=True).fill("1, 1, 1")
    drop(page, files / "resnet20.pth")
    expect(page.locator(".fileline.good")).to_contain_text("resnet20.pth")
    _expect_field(page, "Architecture", "cifar/resnet20")
    _expect_field(page, "Mean", "0.485, 0.456, 0.406")
    _expect_field(page, "Licence of the weights", "")
    _expect_field(page, "Name of the model", "resnet20")


def test_a_refused_file_gets_no_tick_and_says_why_until_another_comes(visit: Visit, service: Up, files: Path) -> None:
    visitor = visit()
    page = visitor.open("/add")
    ticks: list[int] = []
    for name, reason in (
        ("notes.pth", "a file that begins with"),
        ("whole.pt", "an object of Linear"),
        ("alone.json", "expected the weights with it"),
    ):
        drop(page, files / name)
        expect(page.locator(".fileline.bad")).to_contain_text(reason)
        expect(page.locator(".fileline.bad")).to_contain_text(name.removesuffix(".json"))
        ticks.append(page.locator(".fileline.good").count())
    assert ticks == [0, 0, 0]
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Drop a file of weights first.")).to_be_visible()
    drop(page, files / "resnet20.th")
    expect(page.locator(".fileline.good")).to_be_visible()
    expect(page.locator(".fileline.bad")).to_have_count(0)
    assert visitor.complaints == []


def test_errors_stand_at_their_fields_and_stay(visit: Visit, service: Up, files: Path) -> None:
    visitor = visit()
    page = visitor.open("/add")
    drop(page, files / "resnet20.th")
    expect(page.locator(".fileline.good")).to_be_visible()
    posts = _posts(page)
    page.get_by_label("Name of the model").fill("Not A Name")
    page.get_by_label("Classes", exact=True).fill("cat\ndog")
    page.get_by_label("Architecture", exact=True).fill("cifar/resnet56")
    page.get_by_label("Mean", exact=True).fill("")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Nothing is sent yet")).to_be_visible()
    for text in (
        "expected 10 names, one for each output of the network and in their order, got 2",
        "expected a letter or digit",
        "the file does not have the tensors of cifar/resnet56",
        "expected a number for each channel",
    ):
        expect(page.locator(".q-field__messages", has_text=text)).to_be_visible()
    page.get_by_label("Name of the model").fill("a-name")
    expect(page.locator(".q-field__messages", has_text="expected a letter or digit")).to_have_count(0)
    expect(page.locator(".q-field__messages", has_text="expected 10 names")).to_be_visible()
    assert posts == []
    with Client(service.url) as client:
        assert "a-name" not in [model.name for model in client.models.list()]
    assert visitor.complaints == []


def test_a_check_on_images_finds_the_scaling_and_fills_it_in(
    visit: Visit, service: Up, brought: Path, tmp_path: Path
) -> None:
    visitor = visit()
    spec = json.loads((brought / "digits-low.json").read_text())
    with Client(service.url) as client:
        client.datasets.push(brought / "digits.parquet", name="digits")
    (tmp_path / "odd.json").write_text(json.dumps({**spec, "mean": [30.0], "std": [0.01]}))
    (tmp_path / "odd.safetensors").write_bytes((brought / "digits-low.safetensors").read_bytes())
    page = visitor.open("/add")
    drop(page, tmp_path / "odd.safetensors", tmp_path / "odd.json")
    expect(page.locator(".fileline.good")).to_be_visible()
    expect(page.get_by_role("combobox", name="Dataset to check on")).to_have_value(re.compile("digits · 378 images"))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("the accuracy is")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Use ")).click()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".facts", has_text="odd@2")).to_contain_text("95 % certainty")
    assert visitor.complaints == []


def test_a_source_that_no_worker_may_import_is_refused_at_its_field(visit: Visit, service: Up) -> None:
    visitor = visit()
    page = visitor.open("/add?source=nowhere/resnet18")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".q-field__messages", has_text="expected torchvision/NAME")).to_be_visible()
    assert visitor.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen(visit: Visit, service: Up, files: Path, width: int) -> None:
    for scheme in SCHEMES:
        page = visit(width, scheme).open("/add")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{width}-add-empty-{scheme}.png", full_page=True)
        drop(page, files / "resnet20.th")
        expect(page.locator(".fileline.good")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / f"add-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_form_of_torch_save_is_read_as_torch_reads_it(visit: Visit, service: Up, tmp_path: Path) -> None:
    page = visit().open("/add")
    strided = torch.arange(12.0).reshape(3, 4).t()
    tensors = {"a": strided, "b": torch.arange(20)[5:9], "c": torch.tensor([[True, False]])}
    files = {}
    for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        state = {"state_dict": {**tensors, "d": torch.tensor([1.5, -2.25, 3e-5, 0.0]).to(kind)}}
        for legacy in (False, True):
            file = tmp_path / f"{kind}-{legacy}.pt"
            torch.save(state, file, _use_new_zipfile_serialization=not legacy)
            files[file] = state["state_dict"]
    for file, state in files.items():
        packed = page.evaluate(_PACK, list(file.read_bytes()))
        (tmp_path / "packed.safetensors").write_bytes(bytes(packed))
        got = safetensors.torch.load_file(tmp_path / "packed.safetensors")
        assert got.keys() == state.keys()
        for name, tensor in state.items():
            assert torch.equal(got[name], tensor.float() if tensor.is_floating_point() else tensor), (file, name)


_PACK = """async (bytes) => {
    const [, saved] = await pncReader.read(new Blob([new Uint8Array(bytes)])), tensors = [];
    const outline = pncReader.outlined(saved, new Set(["state_dict"]), tensors, 0);
    const plan = outline.map[0][1].map.map(([name, value]) => [value.tensor[0], name]);
    const file = await pncReader.packed(plan, tensors, "x.safetensors");
    return [...new Uint8Array(await file.arrayBuffer())];
}"""
