"""Networks of timm with published weights, and repositories of the Hugging Face Hub in timm's form.

timm itself loads the weights: its filters rename tensors of older files and drop unused ones. If the file is
safetensors and has exactly the loaded tensors, it stays as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from app.imports.sources import Source, SourceError
from app.sources.found import Found, Rules, digest_of
from app.sources.from_torchvision import cached
from app.sources.hub import Repository
from pnc_client.schemas.models import Origin
from pnc_core.config import NetworkSpec
from pnc_core.graph.architectures import build_network, check_weights
from pnc_core.networks.checkpoint import write
from pnc_core.networks.files import is_ready
from pnc_core.spelling import did_you_mean
from pnc_core.vision import timm_package, timm_preprocessing

_OWN_ARGUMENTS = frozenset({"num_classes", "in_chans", "img_size"})
"""Arguments of a stored network that the specification has as well."""


def find(source: Source, rules: Rules, folder: Path) -> Found:
    """A network of timm with the weights of its tag, by default timm's default weights.

    Raises:
        SourceError: timm has no such network or weights, or they cannot be downloaded.
        ConfigError: its preprocessing cannot be described.
    """
    timm = _timm()
    config = _config(timm, source.name)
    if config.hf_hub_id:
        repository = Repository(config.hf_hub_id, None, rules)
        named = config.hf_hub_filename
        path = repository.file(named) if named and rules.own_machine else repository.weights()
        digest, url, revision = digest_of(path), repository.url(path), repository.revision
    elif config.url:
        path, digest = cached(config.url, rules)
        url, revision = config.url, None
    else:
        raise SourceError(f"timm/{source.name}: expected published weights, got none; add the tag of trained weights")
    fields = config.to_dict()
    spec = spec_of(f"timm/{config.architecture}", fields)
    overlay = {"file": str(path), "custom_load": config.custom_load and path.suffix == ".npz"}
    name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    size = {"img_size": spec.input_size[1:]} if config.fixed_input_size else {}
    network = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=len(spec.classes), **size
    )
    file = _loaded(network, spec, path, folder)
    origin = Origin(source=f"timm/{name}", revision=revision, url=url, file=path.name, digest=digest)
    return Found(file, origin, spec, str(fields.get("license") or ""))


def find_in(repository: Repository, stored: Mapping[str, Any], folder: Path) -> Found:
    """A network of a repository whose `config.json` has timm's form.

    Args:
        repository: The repository.
        stored: Its `config.json`.
        folder: Receives the converted file.

    Raises:
        SourceError: the repository has no weights, or the network has arguments that a specification cannot hold.
        ConfigError: its preprocessing cannot be described.
    """
    timm = _timm()
    odd = sorted(set(stored.get("model_args") or {}) - _OWN_ARGUMENTS)
    if odd:
        raise SourceError(
            f"{repository}: expected a network without own arguments, got {', '.join(odd)}; only timm's own "
            "architectures can be imported"
        )
    path = repository.weights()
    network = timm.create_model(f"local-dir:{path.parent}", pretrained=True)
    config = {**network.pretrained_cfg, "num_classes": network.num_classes}
    spec = spec_of(f"timm/{config['architecture']}", config)
    file = _loaded(network, spec, path, folder)
    return Found(file, repository.origin(path), spec, str(config.get("license") or ""))


def spec_of(architecture: str, config: Mapping[str, Any]) -> NetworkSpec:
    """The network for a pretrained configuration of timm.

    Raises:
        SourceError: the network has no classes, or their names are unknown.
        ConfigError: its preprocessing cannot be described.
    """
    timm = _timm()
    fields = timm_preprocessing(timm.data.resolve_data_config(pretrained_cfg=dict(config)))
    return NetworkSpec(architecture=architecture, **_classes(timm, architecture, config), **fields)


def published_spec(name: str) -> NetworkSpec:
    """The network that timm publishes under a name, with its default weights; nothing is downloaded.

    Raises:
        SourceError: timm has no such network or weights, or is not installed.
        ConfigError: its preprocessing cannot be described.
    """
    config = _config(_timm(), name)
    return spec_of(f"timm/{config.architecture}", config.to_dict())


def _timm() -> Any:
    timm = timm_package()
    if timm is None:
        raise SourceError("source: expected timm to be installed, got none; pip install 'pnc-zoo[timm]'")
    return timm


def _config(timm: Any, name: str) -> Any:
    """timm's configuration of published weights.

    Raises:
        SourceError: timm has no such network or weights.
    """
    bare = name.partition(".")[0]
    if bare not in timm.list_models():
        raise SourceError(f"source: expected a network of timm, got {bare!r}{did_you_mean(bare, timm.list_models())}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{bare}.*")]
        raise SourceError(f"source: expected weights of timm/{bare} ({', '.join(tags) or 'none'}), got {name!r}")
    return config


def _classes(timm: Any, architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    count = int(config.get("num_classes") or 0)
    names = config.get("label_names")
    table = config.get("label_descriptions") or {}
    subset = timm.data.infer_imagenet_subset(config)
    if not names and subset is not None:
        known = timm.data.ImageNetInfo(subset)
        names, table = known.label_names(), known.label_descriptions(as_dict=True)
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=int)]
    if not names or len(names) != count or count < 2:
        raise SourceError(
            f"{architecture}: expected a classifier with known class names, got {count} outputs and "
            f"{len(names or ())} names; push its weights with `pnc models push --classes`"
        )
    others = {name: _parts(str(table[name])) for name in names if table.get(name)}
    return {"classes": tuple(names), "class_aliases": {name: parts for name, parts in others.items() if parts}}


def _parts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.split(", ") if 0 < len(part) <= 128 and part.isprintable()))


def _loaded(network: nn.Module, spec: NetworkSpec, path: Path, folder: Path) -> Path:
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    check_weights(build_network(spec, device="meta"), state)
    if path.suffix == ".safetensors" and is_ready(path) and _same(safetensors.torch.load_file(path), state):
        return path
    file = folder / f"{path.stem}.safetensors"
    write({name: tensor.clone() for name, tensor in state.items()}, file)
    return file


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
