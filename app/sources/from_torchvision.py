"""Classifiers of torchvision with their published weights, in the cache of `torch.hub`."""

from pathlib import Path
from typing import Any

import torch.hub

from app.imports.sources import Source, SourceError
from app.sources import web
from app.sources.fit import fitted
from app.sources.found import Found, Rules, digest_of
from pnc_client.schemas.models import Origin
from pnc_core.config import NetworkSpec
from pnc_core.spelling import did_you_mean
from pnc_core.vision import torchvision_models, torchvision_preprocessing

_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""Heads that only training uses; torchvision drops them after loading, too."""
_RESCALED = ("googlenet", "inception_v3")
"""Networks that torchvision builds with `transform_input` if they get published weights."""
_HALF = (0.5, 0.5, 0.5)


def find(source: Source, rules: Rules, folder: Path) -> Found:
    """A classifier with the weights that `@WEIGHTS` names, by default torchvision's default weights.

    Raises:
        SourceError: there are no such weights, they cannot be downloaded, or their digest is not the published one.
    """
    weights = weights_of(source)
    path, digest = cached(weights.url, rules)
    spec = spec_of(source.name, weights)
    file = fitted(path, spec, folder, rules.note, _AUXILIARY)
    text = f"torchvision/{source.name}@{weights.name}"
    origin = Origin(source=text, revision=weights.name, url=weights.url, file=path.name, digest=digest)
    return Found(file, origin, spec, str(weights.meta.get("license", "")))


def weights_of(source: Source) -> Any:
    """The member of torchvision's enumeration of weights.

    Raises:
        SourceError: torchvision has no such classifier or weights.
    """
    models = torchvision_models()
    names = models.list_models(module=models)
    if source.name not in names:
        raise SourceError(
            f"source: expected a classifier of torchvision, got {source.name!r}{did_you_mean(source.name, names)}"
        )
    known = models.get_model_weights(source.name)
    if source.revision is None:
        return known.DEFAULT
    if source.revision not in known.__members__:
        raise SourceError(
            f"source: expected weights of torchvision/{source.name} ({', '.join(known.__members__)}), "
            f"got {source.revision!r}"
        )
    return known[source.revision]


def spec_of(name: str, weights: Any) -> NetworkSpec:
    """The network for weights: class names and preprocessing as torchvision publishes them.

    Raises:
        SourceError: the weights are those of a part of the classifier, and have no classes.
    """
    if not weights.meta["categories"]:
        raise SourceError(
            f"source: expected weights of a whole classifier, got torchvision/{name}@{weights.name}, which have no "
            "classes; choose other weights"
        )
    fields = torchvision_preprocessing(weights.transforms())
    if name in _RESCALED:
        # `transform_input` takes pixels scaled by ImageNet's figures to those scaled by 0.5 and 0.5.
        fields |= {"mean": _HALF, "std": _HALF}
    return NetworkSpec(architecture=f"torchvision/{name}", classes=tuple(weights.meta["categories"]), **fields)


def cached(url: str, rules: Rules) -> tuple[Path, str]:
    """A file in the cache of `torch.hub`, downloaded if it is not there, and its SHA-256.

    Raises:
        SourceError: the file cannot be downloaded, or its digest does not begin as its name says.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / web.file_name(url)
    stated = torch.hub.HASH_REGEX.search(path.name)
    prefix = stated.group(1) if stated else ""
    if path.is_file():
        digest = digest_of(path)
        web.check_digest(str(path), digest, prefix)
        return path, digest
    try:
        return path, web.fetch(url, path, rules, prefix).digest
    except SourceError as error:
        raise SourceError(f"{error} (not in the cache {path.parent} either; TORCH_HOME moves it)") from None
