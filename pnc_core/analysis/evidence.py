"""Evidence about a module: similarity of local representations, and proof that its slices come from the source.

References:
    The paper's abstract says that a similarity matrix of local representations shows
    the module to hold explicit knowledge of the cloned task, and calls this
    transferability. It gives no formula. Representation, entries and controls below are our own choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pnc_core.config import NetworkSpec
from pnc_core.errors import BundleError, DataError, MismatchError, SourceMismatch
from pnc_core.graph.features import Reader, run_part
from pnc_core.graph.positions import Traced, trace
from pnc_core.identity import fingerprint
from pnc_core.images import ImageSet, preprocess
from pnc_core.method.lime import local_representation
from pnc_core.module.bundle import MODULE_PREFIX, Bundle
from pnc_core.module.entry import read_of, takes_image
from pnc_core.module.manifest import Manifest
from pnc_core.module.module import ClonedModule, rows_of
from pnc_core.module.tail import Tail, copied_tensors, extract, open_tail

KEPT_PREFIX = "kept."
Logits = Callable[[Tensor], Tensor]
"""Pixels 0..255 (N, C, H, W) -> logits (N, classes); the function preprocesses the pixels itself."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosines between the local representations of source and module."""

    rows: tuple[str, ...]
    """Classes of the source that have images: cloned classes first, in the order of `columns`."""
    columns: tuple[str, ...]
    """Cloned classes."""
    images: tuple[int, ...]
    """Number of images per row."""
    module: Tensor
    """float64 (R, K), -1..1: entry (i, j) compares the source's weights for class i with the module's for class j."""
    source: Tensor
    """The same matrix with the source in place of the module: the value of a perfect copy."""
    shuffled: float
    """Control: mean diagonal if the module's weights come from *another* image of the same class.

    It measures the similarity that all images of a class share; nan if no class has two images.
    """

    @property
    def transferability(self) -> float:
        """Mean diagonal (1 / K) sum_j m_jj of `module`: 1 for equal representations, about 0 for unrelated ones."""
        return float(self.module.diagonal().mean())

    @property
    def explicitness(self) -> float:
        """Mean diagonal minus mean of the other entries of `module`; nan if there are no other entries."""
        return _above_rest(self.module)

    @property
    def ceiling(self) -> float:
        """Explicitness of the source itself, as an upper reference."""
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

    The local representation w_c(x) of an image x for class c is the vector of the LIME surrogate's weights of the
    network's logit of c, one weight per cell, without the intercept (`pnc_core.method.lime`). The same cells are
    blocked in the pixels of both networks. With the source's weights w^S and the module's weights w^M, entry (i, j) is

        m_ij = mean over images x of class i of cos(w^S_i(x), w^M_j(x)).

    Own choices:

    - Logits, not probabilities: the module copies logits, and a probability would depend on classes that only one of
      the networks has. The cosine ignores the scale of logits, and dropping the intercept ignores their offset.
    - The module's own logits, not the composed network's: a head adds information from other taps.
    - Classes that were not cloned have rows but no columns, because the module has no logits for them. On their images
      the module's weights should differ from the source's weights for the right class.
    - Two controls: the source compared with itself, and the module on another image of the class. Cosines of unrelated
      representations need not be 0, because objects are centred and classes have typical outlines.

    Args:
        source: Function of the source's logits (N, all classes).
        module: Function of the module's logits (N, K), in the order of `cloned`.
        images: Images of all cloned classes, without augmentation; images of the source's other classes are used too.
        spec: The source's spec.
        cloned: Names of the cloned classes.
        limit: Largest number of images per class; the first ones are taken.
        module_spec: Spec of the network for which the module's images are preprocessed, see `pixels_for`; None: the
            module takes `images.images`.

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
    right = own.gather(2, used.labels[:, None, None].expand(-1, own.shape[1], 1))  # the source's, for the right class
    number = torch.bincount(used.labels, minlength=len(used.classes))

    def matrix(theirs: Tensor) -> Tensor:
        cosines = F.cosine_similarity(right, theirs, dim=1, eps=1e-12)  # (N, K)
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
    """The first `limit` images of each class; classes without images are dropped."""
    present = images.only(classes)
    members = [torch.nonzero(present.labels == i).flatten()[:limit] for i in range(len(classes))]
    return present.take(torch.cat(members)).only([c for c, found in zip(classes, members, strict=True) if len(found)])


def _representations(logits: Logits, pixels: Tensor) -> Tensor:
    """Local weights of a network, float64 (N, cells, classes)."""
    with torch.no_grad():
        return local_representation(logits, pixels.float()).cpu().double()


def _neighbours(labels: Tensor) -> Tensor:
    """For every row the index of another row with the same label; its own index if there is no other."""
    order = torch.arange(len(labels))
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        order[members] = members.roll(1)
    return order


def network_logits(network: nn.Module, spec: NetworkSpec) -> Logits:
    """Logits of a whole network in eval mode, on its own device, as a function for `similarity`."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))

    def logits(pixels: Tensor) -> Tensor:
        return network(preprocess(pixels, spec, device))  # type: ignore[no-any-return]

    return logits


def module_logits(target: Traced, module: ClonedModule) -> Logits:
    """Logits of a module without its head, as a function for `similarity`: target up to the position, adapter, tail."""
    manifest = module.manifest
    read = Reader(target, [read_of(manifest)], logits=False)

    def logits(pixels: Tensor) -> Tensor:
        if takes_image(manifest):
            phi = preprocess(pixels, manifest.source, target.device)
        else:
            phi = read(preprocess(pixels, target.spec, target.device))[1][manifest.position.target]
        return run_part(module.part, module.adapter(phi))[0][:, : len(manifest.classes)]

    return logits


@dataclass(frozen=True)
class Verified:
    """Extent of a verification."""

    tensors: int
    """Number of slices compared bit for bit; 0 for a thin bundle."""
    numbers: int
    """Number of values in these slices."""
    channels: int
    """Number of kept channels that were checked."""


def verify_bundle(bundle: Bundle, source: nn.Module) -> Verified:
    """Prove that a bundle was cut from this source.

    Every bundle: the source has the manifest's fingerprint, and every `kept.<group>` holds ascending channels of a
    prunable group behind the manifest's position. A thin bundle has no slices.

    Full bundle: every `module.<name>` is a bit-for-bit slice of the source's tensor of that name; no slice is missing
    and none is added.

    Adapter, calibration and head were trained, and are not checked.

    Args:
        bundle: Thin or full; not changed.
        source: The source network in eval mode; not changed.

    Returns:
        Numbers of compared tensors, values and channels.

    Raises:
        MismatchError: a tensor is not a slice of the source; the message names the tensor.
        SourceMismatch: all slices agree, but the network is not the manifest's source.
        PositionError: the network does not have the manifest's position.
        NetworkError: the source is in train mode or does not have the manifest's architecture.
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
    try:
        return rows_of(manifest)
    except BundleError as error:
        raise MismatchError(str(error)) from None


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
    """Compare bytes. `torch.equal` is unsuitable: for it 0 equals -0, and nan does not equal nan."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    left, right = (t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(left, right)
