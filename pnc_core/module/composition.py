"""The composition: numbers that a set of modules needs on one target, in one safetensors file.

Header metadata has one key, `pnc-composition`, whose value is the manifest as canonical JSON. Tensors:

- `balance`: float64 (M, 2), scale and offset of each module's logits, in the order of the manifest's modules
- `head.weight|bias`: float32 (C, D) and (C,), a common head on the target's last pooled taps, one row per class
- `ridge.mean|spread`: float64 (R,), standardisation of the ridge features
- `ridge.gram`: float64, lower triangle of the Gram matrix, row by row, R + 1 rows
- `ridge.cross`: float64 (R + 1, C), sums of the features by class

`head` and `ridge` are optional. `pnc_core.method.composing.ridge` explains the last four. A module is named by the
digest of its thin bundle, which the thin and the full bundle share. Modules are sorted by this digest. Equal contents
give equal bytes, so a digest identifies a composition.

Own choice. The file is separate from the bundles, because its numbers belong to a set of modules and bundles never
change.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError, CompositionError
from pnc_core.files import written_whole
from pnc_core.module.bundle import Bundle, digest
from pnc_core.module.head import Head
from pnc_core.module.manifest import build, canonical_json
from pnc_core.module.verdict import Verdict
from pnc_core.tensorfile import read_manifest

FORMAT = "pnc-composition/1"
METADATA_KEY = "pnc-composition"
HeadKind = Literal["affine", "joint", "ridge"]
"""`affine`: scales and offsets only. `joint`: also a linear correction, fitted by cross-entropy. `ridge`: also a
weighted ridge regression, which can be extended without old images."""
Origin = Literal["fitted", "extended", "updated"]
"""`fitted`: on images of all classes. `extended`: the statistics grew by the images of new modules. `updated`: the
statistics grew by single labelled rows."""
_RIDGE = ("ridge.mean", "ridge.spread", "ridge.gram", "ridge.cross")
_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True, kw_only=True)
class ComposedModule:
    """A module of a composition."""

    digest: str
    """Digest of its thin bundle."""
    classes: tuple[str, ...]
    source_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class RidgeSpec:
    """Structure of the ridge statistics."""

    taps: int
    """Number of the target's last pooled taps that they read."""
    features: int
    """R, number of features: the first ones of those taps, all of them or the means of the last tap."""
    prior: float
    """Precision of the weights' prior, in rows."""
    weight: float
    """Factor of the ridge scores in the logits; 0 unless the head is `ridge`."""
    images: int
    """Number of images that were summed."""


@dataclass(frozen=True, kw_only=True)
class CompositionManifest:
    """Description of a composition: everything except its tensors."""

    format: str
    target: NetworkSpec
    target_fingerprint: str
    modules: tuple[ComposedModule, ...]
    """The modules, sorted by digest."""
    head: HeadKind
    origin: Origin
    ridge: RidgeSpec | None
    """None: there are no statistics."""
    without_ridge: str
    """Reason why there are no statistics; empty if there are."""
    verdict: Verdict | None
    """Comparison with the modules without this composition and with answers that need no module; None unless
    `origin` is `fitted`."""
    created_by: str
    """Name and version of the software."""

    def __post_init__(self) -> None:
        digests = [module.digest for module in self.modules]
        if not digests or digests != sorted(set(digests)):
            raise ValueError(f"modules: expected at least one, sorted by digest and each once, got {digests}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes: the target's, then those of each module; a class of several modules appears once."""
        new = (name for module in self.modules for name in module.classes)
        return tuple(dict.fromkeys((*self.target.classes, *new)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return {**asdict(self), "target": self.target.to_dict()}

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json(self.to_dict())


@dataclass(frozen=True, eq=False)
class Composition:
    """A manifest and its tensors, on the CPU."""

    manifest: CompositionManifest
    tensors: dict[str, Tensor]

    def __post_init__(self) -> None:
        _check_tensors(self.manifest, self.tensors)

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the modules' thin bundles, sorted."""
        return tuple(module.digest for module in self.manifest.modules)

    def balance_of(self, module: str) -> tuple[float, float]:
        """Scale and offset of the logits of a module, by the digest of its thin bundle.

        Raises:
            CompositionError: the composition has no such module.
        """
        if module not in self.digests:
            raise CompositionError(f"composition: expected one of the modules {self.digests}, got {module}")
        scale, offset = self.tensors["balance"][self.digests.index(module)].tolist()
        return scale, offset

    def common_head(self, classes: Sequence[str]) -> Head | None:
        """The common head on the target's last pooled taps; None: there is none.

        Args:
            classes: The classes of the composition in the order of the rows: the target's first.
        """
        if self.manifest.head == "affine":
            return None
        rows = [self.manifest.classes.index(name) for name in classes]
        weight, bias = self.tensors["head.weight"][rows], self.tensors["head.bias"][rows]
        old = len(self.manifest.target.classes)
        head = Head("joint", weight.shape[1], old, len(rows) - old)
        head.weight.data, head.bias.data = weight.clone(), bias.clone()
        return head.requires_grad_(False)

    def to_bytes(self) -> bytes:
        """Bytes of the file; equal compositions have equal bytes."""
        tensors = {n: t.detach().cpu().contiguous() for n, t in sorted(self.tensors.items())}
        return safetensors.torch.save(tensors, {METADATA_KEY: self.manifest.to_json()})

    def write(self, path: Path | str) -> str:
        """Write the file atomically; returns its digest, `sha256:` and 64 hexadecimal digits."""
        raw = self.to_bytes()
        with written_whole(Path(path)) as half:
            half.write_bytes(raw)
        return digest(raw)


def module_digest(bundle: Bundle) -> str:
    """Digest of a bundle's thin form, by which a composition names the module; equal for thin and full bundles."""
    return digest(bundle.thin().to_bytes())


def read_composition(path: Path | str) -> Composition:
    """Read a composition; `read_manifest` checks the header before safetensors parses the file.

    Raises:
        CompositionError: the file is truncated, damaged or not a composition of this format.
    """
    manifest = _manifest(read_manifest(Path(path), METADATA_KEY, "composition", CompositionError))
    return Composition(manifest, safetensors.torch.load_file(Path(path)))


def _manifest(text: str) -> CompositionManifest:
    try:
        value = json.loads(text)
        got = value.get("format") if isinstance(value, dict) else None
        if got != FORMAT:
            raise CompositionError(f"composition: expected format {FORMAT!r}, got {got!r}; use a matching version")
        manifest = build(CompositionManifest, value, "composition")
    except (ValueError, RecursionError, BundleError) as error:
        raise CompositionError(f"composition: expected a manifest, got text that fails ({error})") from None
    if manifest.to_json() != text:
        raise CompositionError("composition: expected a manifest in canonical form, got another; write it again")
    return manifest


def _check_tensors(manifest: CompositionManifest, tensors: dict[str, Tensor]) -> None:
    """Check names, dtypes, shapes and values.

    Raises:
        CompositionError: a tensor is missing, superfluous, of another dtype or shape, or not finite.
    """
    modules, classes = len(manifest.modules), len(manifest.classes)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"balance": (torch.float64, (modules, 2))}
    if manifest.head != "affine":
        width = tensors["head.weight"].shape[-1] if "head.weight" in tensors and tensors["head.weight"].ndim else 0
        expected |= _laid_out(_HEAD, torch.float32, ((classes, width), (classes,)))
    if manifest.ridge is not None:
        count = manifest.ridge.features
        shapes = ((count,), (count,), ((count + 1) * (count + 2) // 2,), (count + 1, classes))
        expected |= _laid_out(_RIDGE, torch.float64, shapes)
    got = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if got != expected:
        wrong = sorted(n for n in {*got, *expected} if got.get(n) != expected.get(n))[:4]
        pairs = "; ".join(f"{n}: expected {expected.get(n)}, got {got.get(n)}" for n in wrong)
        raise CompositionError(f"composition: tensors do not fit the manifest; {pairs}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CompositionError(f"composition: tensor {name!r}: expected finite numbers, got inf or nan")


def _laid_out(
    names: tuple[str, ...], dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtype and shape by name."""
    return {name: (dtype, shape) for name, shape in zip(names, shapes, strict=True)}
