"""The bundle: one safetensors file with its manifest in the header.

Header metadata has one key, `pnc`, whose value is the manifest as canonical
JSON. Tensors:

- `kept.<group>`: int32, ascending indices of the source's channels that were kept
- `adapter.weight|bias`: the front adapter; `adapter.leading_weight|leading_bias`: its map for leading tokens
- `calibration.<group>.scale|shift`: channel calibration
- `inner.<layer>.up|down|bias`: parallel adapters
- `head.scale|offset|weight|bias`: the head; `head.shutter_weight|shutter_bias`: its locality gate
- `module.<name>`: only in a `full` bundle, slices of the source's tensors by their own names

A `thin` bundle does not contain the slices; its receiver needs the source. Equal
contents give equal bytes, so a digest identifies a bundle.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from pnc_core.errors import BundleError
from pnc_core.files import written_whole
from pnc_core.module.manifest import Manifest, Payload
from pnc_core.tensorfile import read_manifest

MANIFEST_KEY = "pnc"
MODULE_PREFIX = "module."


@dataclass(frozen=True)
class Bundle:
    """A manifest and its tensors, on the CPU."""

    manifest: Manifest
    tensors: dict[str, Tensor]

    def thin(self) -> "Bundle":
        """The same bundle without the source's slices."""
        tensors = {n: t for n, t in self.tensors.items() if not n.startswith(MODULE_PREFIX)}
        return Bundle(replace(self.manifest, payload="thin"), tensors)

    def payload(self, payload: Payload) -> "Bundle":
        """This bundle as `thin` or `full`.

        Raises:
            BundleError: a thin bundle cannot become full.
        """
        if payload == "full" and self.manifest.payload == "thin":
            raise BundleError("payload: expected a full bundle, got a thin one; download the full payload")
        return self if payload == "full" else self.thin()

    def to_bytes(self) -> bytes:
        """Bytes of the file; equal bundles have equal bytes.

        Raises:
            BundleError: a number is not finite; `read_bundle` would refuse the file.
        """
        tensors = {n: t.detach().cpu().contiguous() for n, t in sorted(self.tensors.items())}
        _check_finite(tensors)
        return safetensors.torch.save(tensors, {MANIFEST_KEY: self.manifest.to_json()})

    def write(self, path: Path | str) -> str:
        """Write the file atomically; returns its digest, `sha256:` and 64 hexadecimal digits."""
        raw = self.to_bytes()
        with written_whole(Path(path)) as half:
            half.write_bytes(raw)
        return digest(raw)


def digest(raw: bytes) -> str:
    """`sha256:` and the hexadecimal SHA-256 of a file's bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle; `read_manifest` checks the header before safetensors parses the file.

    Raises:
        BundleError: the file is truncated, damaged or not a bundle of this format.
    """
    manifest = Manifest.from_json(read_manifest(Path(path), MANIFEST_KEY, "bundle", BundleError))
    tensors = safetensors.torch.load_file(Path(path))
    _check_finite(tensors)
    return Bundle(manifest, tensors)


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"bundle: tensor {name!r}: expected finite numbers, got inf or nan")
