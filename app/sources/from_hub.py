"""Repositories of the Hugging Face Hub: of this project, of timm, and of transformers."""

from pathlib import Path

from huggingface_hub import metadata_load

from app.imports.sources import Source, SourceError
from app.sources import from_timm, from_transformers
from app.sources.fit import fitted
from app.sources.found import OWN, Found, Rules
from app.sources.hub import Folder, Repository
from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError
from pnc_core.module.manifest import build


def find(source: Source, rules: Rules, folder: Path) -> Found:
    """The network of a repository, or of a folder with the files of one.

    Raises:
        SourceError: the repository cannot be read, or holds no network that can be imported.
        PncError: its network cannot be described or its weights do not fit.
    """
    path = Path(source.name)
    repository = Folder(path) if source.kind == "file" else Repository(source.name, source.revision, rules)
    stored = repository.read_json(repository.file("config.json"))
    if isinstance(stored.get(OWN), dict):
        found = _exported(repository, stored[OWN].get("spec"), rules, folder)
    elif "architecture" in stored:
        found = from_timm.find_in(repository, stored, folder)
    elif "architectures" in stored:
        found = from_transformers.find(repository, stored, folder)
    else:
        raise SourceError(
            f"{repository}: expected config.json of timm, of an image classifier of transformers, or of `pnc models "
            "export`, got another one; push its weights with `pnc models push`"
        )
    licence = found.licence or _licence(repository)
    origin = found.origin.model_copy(update={"source": source.text})
    return Found(found.weights, origin, found.spec, licence)


def _exported(repository: Repository, stored: object, rules: Rules, folder: Path) -> Found:
    try:
        spec = build(NetworkSpec, stored, f"{repository}: config.json")
    except BundleError as error:
        raise SourceError(f"{error}; export it again") from None
    path = repository.weights()
    return Found(fitted(path, spec, folder, rules.note), repository.origin(path), spec)


def _licence(repository: Repository) -> str:
    card = repository.optional("README.md")
    known = metadata_load(card) if card is not None else None
    return str((known or {}).get("license") or "")[:200]
