"""Texts that name sources of networks."""

import pytest

from app.imports.sources import Source, SourceError, is_allowed, parse
from pnc_client.schemas.imports import DEFAULT_HOSTS


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision", "model"),
    [
        ("torchvision/resnet18", "torchvision", "resnet18", None, "resnet18"),
        ("torchvision/vit_b_16@IMAGENET1K_V1", "torchvision", "vit_b_16", "IMAGENET1K_V1", "vit_b_16"),
        ("timm/resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None, "resnet18.a1_in1k"),
        ("hf://Microsoft/ResNet-50@refs/pr/1", "hf", "Microsoft/ResNet-50", "refs/pr/1", "resnet-50"),
        ("mlflow://models/Digits Net/3", "mlflow", "Digits Net", "3", "digits-net"),
    ],
)
def test_each_form_has_its_parts(text: str, kind: str, name: str, revision: str | None, model: str) -> None:
    source = parse(text)
    assert source == Source(kind, text, name, revision)  # type: ignore[arg-type]
    assert source.model_name == model


def test_the_text_of_a_url_has_no_secrets() -> None:
    source = parse("https://user:secret@host.example/a/Net-1.safetensors?token=secret#x")
    assert source.text == "https://host.example/a/Net-1.safetensors"
    assert source.model_name == "net-1"


def test_other_texts_are_files_where_files_are_meant() -> None:
    assert parse("./timm/x.th", files=True) == Source("file", "x.th", "./timm/x.th")
    assert parse("weights.pth", files=True).model_name == "weights"
    for text in ("", "timm/", "torchvision/a b", "ftp://host/x", "hf://name", "mlflow://models/x"):
        with pytest.raises(SourceError, match=r"expected torchvision/NAME"):
            parse(text, files=True)
    with pytest.raises(SourceError, match=r"expected torchvision/NAME"):
        parse("weights.pth")


def test_a_star_stands_for_subdomains_only() -> None:
    assert is_allowed("cdn-lfs-us-1.hf.co", DEFAULT_HOSTS)
    assert is_allowed("huggingface.co", DEFAULT_HOSTS)
    for host in ("hf.co.example", "evilhuggingface.co", "xhf.co", "", "localhost"):
        assert not is_allowed(host, DEFAULT_HOSTS)
