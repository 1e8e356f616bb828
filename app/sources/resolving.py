"""Find the network that a source names."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.imports.sources import Source, SourceError
from app.sources import web
from app.sources.fit import fitted
from app.sources.found import Found, Rules, digest_of
from pnc_client.schemas.models import Origin
from pnc_core.config import NetworkSpec
from pnc_core.networks.files import kind_of


@contextmanager
def found_at(source: Source, rules: Rules, spec: NetworkSpec | None = None) -> Iterator[Found]:
    """The network that a source names; its files outside a cache are gone after the block.

    Args:
        source: The source.
        rules: Limits of downloads.
        spec: The network, for sources without a specification; other sources have their own.

    Returns:
        Without `spec`, a file, a URL or a version of MLflow is a bare file of weights.

    Raises:
        PncError: the source cannot be reached, holds no network, or its weights do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="pnc-") as name:
        folder = Path(name)
        found = _found(source, rules, folder)
        if found.spec is None and not rules.own_machine and kind_of(found.weights) != "safetensors":
            raise SourceError(
                f"{source.text}: expected safetensors, got a file of torch.save; import it on your machine, which "
                "converts it"
            )
        if found.spec is None and spec is not None:
            found = Found(fitted(found.weights, spec, folder, rules.note), found.origin, spec)
        yield found


def _found(source: Source, rules: Rules, folder: Path) -> Found:
    # Each of these imports a package that only its source needs.
    if source.kind == "torchvision":
        from app.sources import from_torchvision

        return from_torchvision.find(source, rules, folder)
    if source.kind == "timm":
        from app.sources import from_timm

        return from_timm.find(source, rules, folder)
    if source.kind == "hf" or (source.kind == "file" and Path(source.name).is_dir()):
        _need_hub()
        from app.sources import from_hub

        return from_hub.find(source, rules, folder)
    if source.kind == "mlflow":
        from app.sources import from_mlflow

        return from_mlflow.find(source, rules, folder)
    if source.kind == "url":
        fetched = web.fetch(source.name, folder / web.file_name(source.name), rules)
        origin = Origin(source=source.text, url=source.text, file=fetched.path.name, digest=fetched.digest)
        return Found(fetched.path, origin)
    path = Path(source.name)
    if not path.is_file():
        raise SourceError(f"source: expected an existing file, got {source.name!r:.80}; check the path")
    return Found(path, Origin(source=path.name, file=path.name, digest=digest_of(path)))


def _need_hub() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ModuleNotFoundError:
        raise SourceError(
            "source: expected huggingface_hub to be installed, got none; pip install 'pnc-zoo[hub]'"
        ) from None
