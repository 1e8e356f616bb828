"""Check a bundle file against its source and its target."""

from pathlib import Path
from typing import Any

from pnc_core.analysis.evidence import verify_bundle
from pnc_core.config import NetworkSpec
from pnc_core.errors import TargetMismatch
from pnc_core.graph.architectures import load_network
from pnc_core.identity import fingerprint
from pnc_core.module.bundle import digest, read_bundle
from pnc_core.networks.files import as_safetensors


def verify_file(path: Path, source: Path | None, target: Path | None) -> dict[str, Any]:
    """Check a bundle and return its main facts.

    Args:
        path: A thin or full bundle.
        source: Weights of the source, to which the module's copies must be equal; None: the copies are not checked.
        target: Weights of the target, whose fingerprint must match; None: the fingerprint is not checked.

    Raises:
        BundleError: the file is damaged or is not a bundle.
        MismatchError: a copy differs from the source, or a network has another fingerprint.
        PncError: a network cannot be loaded.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    facts: dict[str, Any] = {
        "bundle": str(path),
        "digest": digest(path.read_bytes()),
        "payload": manifest.payload,
        "classes": list(manifest.classes),
        "position": str(manifest.position),
        "fits_target": None,
        "cut_from_source": None,
    }
    if target is not None:
        got = fingerprint(_load(manifest.target, target))
        if got != manifest.target_fingerprint:
            raise TargetMismatch(f"{target}: expected fingerprint {manifest.target_fingerprint}, got {got}")
        facts["fits_target"] = True
    if source is not None:
        found = verify_bundle(bundle, _load(manifest.source, source))
        facts |= {"cut_from_source": True, "tensors_compared": found.tensors, "numbers_compared": found.numbers}
    return facts


def _load(spec: NetworkSpec, path: Path) -> Any:
    with as_safetensors(path) as file:
        return load_network(spec, file).requires_grad_(False)
