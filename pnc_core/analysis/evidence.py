"""What a module holds, and that it holds nothing else: similarity of local representations, and proof of origin.

References:
    The paper's abstract says that a similarity matrix of local representations shows
    the module to hold explicit knowledge of the cloned task, and calls this
    transferability. It gives no formula: representation, entries, rest and controls
    below are our own choice, each with its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.errors import DataError, MismatchError, SourceMismatch
from pnc_core.graph.features import Reader, run_part
from pnc_core.graph.positions import Traced, trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.lime import local_representation
from pnc_core.module.bundle import MODULE_PREFIX, Bundle
from pnc_core.module.entry import read_of, takes_image
from pnc_core.module.manifest import Manifest
from pnc_core.module.module import ClonedModule
from pnc_core.module.tail import Tail, copied_tensors, extract, open_tail

KEPT_PREFIX = "kept."
Logits = Callable[[Tensor], Tensor]
"""Pixels 0..255 (N, C, H, W) -> logits (N, classes); preprocessing is its own affair."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike source and module explain images of every class of the source."""

    rows: tuple[str, ...]
    """Classes of the source that there are images of: the cloned ones first, in the order of `columns`."""
    columns: tuple[str, ...]
    """Cloned classes."""
    images: tuple[int, ...]
    """How many images each row is a mean over."""
    module: Tensor
    """float64 (R, K), -1..1: row i is the source's view of class i, column j the module's view of class j."""
    source: Tensor
    """The same with the source itself in the module's place: what a perfect copy would show."""
    shuffled: float
    """The mean diagonal when the module explains *another* image of the same class.

    What is left of it is what all images of a class share; nan where no class has two images.
    """

    @property
    def transferability(self) -> float:
        """Mean diagonal over the cloned classes: 1 is the source's own reasons, 0 unrelated ones."""
        return float(self.module.diagonal().mean())

    @property
    def explicitness(self) -> float:
        """Transferability minus the mean of the rest; nan where there is no rest."""
        return _above_rest(self.module)

    @property
    def ceiling(self) -> float:
        """Explicitness of the source itself, to compare with."""
        return _above_rest(self.source)


def _above_rest(matrix: Tensor) -> float:
    rest = ~torch.eye(*matrix.shape, dtype=torch.bool)
    return float(matrix.diagonal().mean() - matrix[rest].mean())


def similarity(
    source: Logits,
    module: Logits,
    images: ImageSet,
    spec: NetworkSpec,
    cloned: tuple[str, ...],
    *,
    limit: int = 32,
    module_spec: NetworkSpec | None = None,
) -> Similarity:
    """Compare the local representations of a source and of a module cloned from it.

    The local representation of an image x for class c in the eyes of a network is how
    much every cell of the image speaks for c: the weights of the LIME surrogate of the
    network's *logit* of c, without the constant (`pnc_core.method.lime`). The same cells are
    blocked in the pixels of both networks. Entry (i, j) is the mean, over images of class i, of the cosine
    between the source's weights for i and the module's weights for j.

    Choices, all our own:

    - Logits and not probabilities: logits are what the module copies, and a
      probability would need classes that only one of the two has. The cosine makes it
      indifferent to their scale, and leaving out the constant to their offset.
    - The module's own logits and not the composed network's: a head adds what it
      reads elsewhere.
    - Classes that were not cloned have rows but no columns, as the module has no logits
      for them. On their images the module's weights should be unlike the source's weights
      for the right class: these entries are part of the rest.
    - Networks look at the middle of an image and classes have an outline, so that
      unrelated cosines need not be 0. Hence two controls: the source with itself, and the
      module on another image of the class.

    Args:
        source: The source's logits of all its classes.
        module: The module's logits (N, K), in the order of `cloned`.
        images: Images of the source's classes, cloned ones at least; others are ignored. Not augmented.
        spec: The source's.
        cloned: Names of the cloned classes.
        limit: Images of each class at most; the first ones are taken.
        module_spec: The network whose pixels the module takes, see `pixels_for`; None: `images.images`.

    Raises:
        DataError: a cloned class has no image.
    """
    used = _by_class(images, (*cloned, *(c for c in spec.classes if c not in cloned)), limit)
    if used.classes[: len(cloned)] != cloned:
        raise DataError(f"images: expected some of every class of {list(cloned)}, got {list(used.classes)}; add some")
    views = used.views
    own = _representations(source, views.seen_by(spec))
    made = _representations(module, views.plain if module_spec is None else views.seen_by(module_spec))
    own = own[..., [spec.classes.index(name) for name in used.classes]]
    reasons = own.gather(2, used.labels[:, None, None].expand(-1, own.shape[1], 1))  # the source's, for the right class
    number = torch.bincount(used.labels, minlength=len(used.classes))

    def matrix(theirs: Tensor) -> Tensor:
        cosines = F.cosine_similarity(reasons, theirs, dim=1, eps=1e-12)  # (N, K)
        total = torch.zeros(len(number), len(cloned), dtype=torch.float64)
        return total.index_add(0, used.labels, cosines) / number[:, None]

    shuffled = matrix(made[_neighbours(used.labels)]).diagonal()[number[: len(cloned)] > 1]
    return Similarity(
        rows=used.classes,
        columns=cloned,
        images=tuple(number.tolist()),
        module=matrix(made),
        source=matrix(own[..., : len(cloned)]),
        shuffled=float(shuffled.mean()),
    )


def _by_class(images: ImageSet, classes: tuple[str, ...], limit: int) -> ImageSet:
    """The first images of each class; classes without any are left out."""
    present = images.only(classes)
    members = [torch.nonzero(present.labels == i).flatten()[:limit] for i in range(len(classes))]
    return present.take(torch.cat(members)).only([c for c, found in zip(classes, members, strict=True) if len(found)])


def _representations(logits: Logits, pixels: Tensor) -> Tensor:
    """Local weights of a network, float64 (N, cells, classes)."""
    with torch.no_grad():
        return local_representation(logits, pixels.float()).cpu().double()


def _neighbours(labels: Tensor) -> Tensor:
    """For every row another row of the same label, the next one around; itself where it is alone."""
    order = torch.arange(len(labels))
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        order[members] = members.roll(1)
    return order


def network_logits(network: nn.Module, spec: NetworkSpec) -> Logits:
    """A whole network as `similarity` takes it, in eval mode, on its own device."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))

    def logits(pixels: Tensor) -> Tensor:
        return network(preprocess(pixels, spec, device))  # type: ignore[no-any-return]

    return logits


def module_logits(target: Traced, module: ClonedModule) -> Logits:
    """A module as `similarity` takes it: the target up to its position, adapter and tail, without its head."""
    manifest = module.manifest
    read = Reader(target, [read_of(manifest)], logits=False)

    def logits(pixels: Tensor) -> Tensor:
        if takes_image(manifest):
            return run_part(module.part, module.adapter(preprocess(pixels, manifest.source, target.device)))[0]
        _, activations = read(preprocess(pixels, target.spec, target.device))
        return run_part(module.part, module.adapter(activations[manifest.position.target]))[0]

    return logits


@dataclass(frozen=True)
class Verified:
    """What was proved of a bundle."""

    tensors: int
    """Slices compared bit for bit; 0 for a thin bundle, which has none."""
    numbers: int
    """Numbers in them."""
    channels: int
    """Indices of kept channels that were checked."""


def verify_bundle(bundle: Bundle, source: nn.Module) -> Verified:
    """Prove that a bundle was cut from this very source.

    Thin: the source has the manifest's fingerprint, and every `kept.<group>` holds
    ascending channels of a group that can be pruned behind the manifest's position; there is no slice.
    Full: besides, every `module.<name>` is a bit-for-bit slice of the source's tensor of that name, none is missing,
    and there is no other. Adapter, calibration and head were learned: nothing is claimed of them.

    Args:
        bundle: Thin or full; only read.
        source: The source network in eval mode; only read.

    Returns:
        How much was compared.

    Raises:
        MismatchError: a tensor is not what the source says; the message names it.
        SourceMismatch: the network is not the manifest's source, though all slices agree.
        PositionError: the manifest's position is not one of this network's.
        NetworkError: the source is in train mode or is not of the manifest's architecture.
    """
    manifest = bundle.manifest
    opened = open_tail(trace(source, manifest.source), manifest.position.source, _rows(manifest))
    kept = _checked_kept(bundle, opened)
    slices = {n.removeprefix(MODULE_PREFIX): t for n, t in bundle.tensors.items() if n.startswith(MODULE_PREFIX)}
    _compare(copied_tensors(extract(opened, kept)) if manifest.payload == "full" else {}, slices)
    got = fingerprint(source)
    if got != manifest.source_fingerprint:
        raise SourceMismatch(f"bundle: cut from the source {manifest.source_fingerprint}, got the network {got}")
    return Verified(len(slices), sum(t.numel() for t in slices.values()), sum(map(len, kept.values())))


def _rows(manifest: Manifest) -> list[int]:
    unknown = [c for c in manifest.classes if c not in manifest.source.classes]
    if unknown:
        raise MismatchError(f"manifest.classes: expected classes of the source, got {unknown}")
    return [manifest.source.classes.index(c) for c in manifest.classes]


def _checked_kept(bundle: Bundle, opened: Tail) -> dict[str, Tensor]:
    widths = {KEPT_PREFIX + g.name: g.width for g in opened.groups}
    for name in sorted(widths.keys() | {n for n in bundle.tensors if n.startswith(KEPT_PREFIX)}):
        if name not in widths or name not in bundle.tensors or not _ascending(bundle.tensors[name], widths[name]):
            raise MismatchError(
                f"module: expected tensor {name!r} to be ascending int32 channels of "
                f"{widths.get(name, 'no such group')}, it is not"
            )
    return {name.removeprefix(KEPT_PREFIX): bundle.tensors[name].long() for name in widths}


def _ascending(kept: Tensor, width: int) -> bool:
    if kept.dtype != torch.int32 or kept.ndim != 1 or not len(kept):
        return False
    return int(kept[0]) >= 0 and int(kept[-1]) < width and bool((kept.diff() > 0).all())


def _compare(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    for name in sorted(expected.keys() | got.keys()):
        if name not in got or name not in expected or not _same_bits(expected[name], got[name]):
            raise MismatchError(
                f"module: expected tensor {MODULE_PREFIX + name!r} to be a bit-for-bit slice of the source, it is not; "
                "was the bundle changed, or cut from another network?"
            )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Not `torch.equal`, for which 0 and -0 are equal and nan is not."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(left, right)
