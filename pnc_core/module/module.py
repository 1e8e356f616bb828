"""A cloned module: adapter, tail and head, built from a bundle or by a job."""

from functools import partial

import torch
from torch import Tensor, fx, nn

from pnc_core.config import Position
from pnc_core.errors import BundleError, PositionError, SourceMismatch, UnknownArchitecture
from pnc_core.graph.architectures import build_network
from pnc_core.graph.features import run_part
from pnc_core.graph.positions import INPUT, PositionInfo, Traced, trace
from pnc_core.identity import fingerprint
from pnc_core.module.adapter import Adapter
from pnc_core.module.bundle import MODULE_PREFIX, Bundle
from pnc_core.module.entry import takes_image
from pnc_core.module.head import SHUT, Head, log_odds, pool_taps, tap_width
from pnc_core.module.manifest import Manifest
from pnc_core.module.tail import Tail, copied_tensors, extract, open_tail, with_parallel_adapters

MAX_GRID = 8
"""Widest grid of taps; `CloneConfig.tap_grid` has the same bound."""


class ClonedModule(nn.Module):
    """A cloned module: logits z_s = S_kept[R_s:](A(phi)), then the head."""

    def __init__(self, manifest: Manifest, adapter: Adapter, tail: Tail, head: Head) -> None:
        super().__init__()
        self.manifest = manifest
        self.adapter, self.part, self.head = adapter, tail.part, head
        self._tap_axes = tail.tap_axes
        self.requires_grad_(False).eval()

    def forward(self, phi: Tensor, seen: Tensor) -> tuple[Tensor | None, Tensor]:
        """Logits of one batch. With strict locality the module runs only on images that pass the locality gate.

        Args:
            phi: The target's activation at the module's position.
            seen: The target's pooled taps (N, D_t), in the manifest's order.

        Returns:
            Correction of the old logits (N, N_old), or None for the heads `affine` and `router`; new logits (N, K).
        """
        head: Head = self.head
        if not head.strict:
            return self._answer(phi, seen)
        opened = head.opens(seen)
        if torch.compiler.is_compiling():  # an exported graph cannot skip rows; the logits are the same
            _, new = self._answer(phi, seen)
            return None, torch.where(opened[:, None], new, torch.full_like(new, SHUT))
        new = seen.new_full((len(seen), len(self.manifest.classes)), SHUT)
        if opened.any():
            new[opened] = self._answer(phi[opened], seen[opened])[1].to(new.dtype)
        return None, new

    def _answer(self, phi: Tensor, seen: Tensor) -> tuple[Tensor | None, Tensor]:
        part: fx.GraphModule = self.part
        head: Head = self.head
        own, taps = run_part(part, self.adapter(phi))
        if self.manifest.head.odds:
            own = log_odds(own.float(), len(self.manifest.classes))
        if head.kind == "affine":  # reads no taps
            return head.answer(own.float(), seen)
        read = slice(len(taps) - len(self.manifest.head.module_taps), None)
        made = pool_taps(taps[read], self._tap_axes[read], self.manifest.head.grid)
        return head.answer(own.float(), torch.cat([seen, made], dim=1))


def module_tensors(adapter: Adapter, tail: Tail, head: Head) -> dict[str, Tensor]:
    """All tensors of a full bundle."""
    tensors = {f"kept.{name}": kept.to(torch.int32) for name, kept in tail.kept.items()}
    for prefix, part in _learned_parts(adapter, tail, head):
        tensors |= {prefix + name: tensor for name, tensor in part.state_dict().items()}
    tensors |= {f"{MODULE_PREFIX}{n}": t for n, t in copied_tensors(tail).items()}
    # Not .contiguous(): a 1x1 kernel counts as contiguous in both memory formats, and the format changes rounding.
    plain = torch.contiguous_format
    return {name: tensor.detach().cpu().clone(memory_format=plain) for name, tensor in tensors.items()}


def _learned_parts(adapter: Adapter, tail: Tail, head: Head) -> list[tuple[str, nn.Module]]:
    """All trained parts of a module, with the prefix of their tensors in a bundle."""
    inside = [(f"{kind}.{name}.", part) for kind, parts in tail.learned.items() for name, part in parts.items()]
    return [("adapter.", adapter), ("head.", head), *inside]


def load_module(bundle: Bundle, target: Traced, source: nn.Module | None = None) -> ClonedModule:
    """Build the module of a bundle; target and source are not changed.

    Args:
        bundle: Thin or full.
        target: The traced target, whose fingerprint the caller has checked.
        source: The source network. Required for a thin bundle, and for a full bundle of an unknown architecture.

    Raises:
        BundleError: tensors are missing, unexpected or of another shape.
        SourceMismatch: a thin bundle is given without its source, or the given source is another network.
        UnknownArchitecture: a full bundle of an unknown architecture is given without its source.
    """
    manifest = bundle.manifest
    traced = trace(_source_network(manifest, source), manifest.source)
    opened = open_tail(traced, manifest.position.source, rows_of(manifest))
    tail = extract(opened, {g.name: _kept(bundle, g.name, g.width) for g in opened.groups})
    tail = _with_parallel(tail, manifest.inner)
    adapter = Adapter(
        _taken(manifest, target, traced),
        traced.position(manifest.position.source),
        relu=manifest.adapter_relu,
        resize=manifest.adapter_resize,
    )
    seen, made = _head_widths(manifest, target, traced, tail)
    sizes = len(manifest.target.classes), len(manifest.classes)
    head = Head(manifest.head.kind, seen + made, *sizes, locality_gate=seen if manifest.head.strict else 0)
    _fill(bundle, adapter, tail, head)
    return ClonedModule(manifest, adapter, tail, head)


def _taken(manifest: Manifest, target: Traced, source: Traced) -> PositionInfo:
    """The position whose activation the adapter takes."""
    if not takes_image(manifest):
        return target.position(manifest.position.target)
    if manifest.position != Position(target=INPUT, source=INPUT):
        raise BundleError(f"manifest.adapter_resize: expected 'image' at input->input alone, got {manifest.position}")
    return source.position(INPUT)


def _with_parallel(tail: Tail, layers: tuple[str, ...]) -> Tail:
    try:
        return with_parallel_adapters(tail, layers) if layers else tail
    except PositionError as error:
        raise BundleError(f"manifest.inner: {error}") from None


def rows_of(manifest: Manifest) -> list[int]:
    """Indices of the classes among the source's logits whose rows the module keeps, cloned classes first.

    Raises:
        BundleError: a class is not one of the source, or is listed twice.
    """
    unknown = [c for c in manifest.classes if c not in manifest.source.classes]
    if unknown or len(set(manifest.classes)) != len(manifest.classes):
        raise BundleError(f"manifest.classes: expected distinct classes of the source, got unknown {unknown}")
    others = [c for c in manifest.source.classes if manifest.head.odds and c not in manifest.classes]
    return [manifest.source.classes.index(c) for c in (*manifest.classes, *others)]


def _head_widths(manifest: Manifest, target: Traced, source: Traced, tail: Tail) -> tuple[int, int]:
    """Number of features that the head reads of target and module, derived from the networks, not from the tensors."""
    spec = manifest.head
    every = tuple(p.name for p in target.taps), tail.taps
    for got, taps in zip((spec.target_taps, spec.module_taps), every, strict=True):
        if got != (taps[-len(got) :] if got else taps):
            raise BundleError(f"manifest.head: expected the taps {taps}, or the last of them, got {got}")
    if not 1 <= spec.grid <= MAX_GRID:
        raise BundleError(f"manifest.head.grid: expected 1 to {MAX_GRID}, got {spec.grid}")
    seen = [(p.channels, p.grid) for p in map(target.position, spec.target_taps)]
    made = [
        (channels, source.position(name).grid)
        for name, channels in zip(tail.taps, tail.tap_channels(source), strict=True)
        if name in spec.module_taps
    ]
    both = [sum(tap_width(channels, grid, spec.grid) for channels, grid in side) for side in (seen, made)]
    return both[0], both[1]


def _source_network(manifest: Manifest, source: nn.Module | None) -> nn.Module:
    """The network to cut the tail from. A full bundle contains the tensors, so an empty network is enough."""
    if manifest.payload == "thin":
        return _checked_source(manifest, source)
    try:
        return build_network(manifest.source, device="meta")
    except UnknownArchitecture as error:
        if source is None:
            raise UnknownArchitecture(
                f"{error}; or pass the source network {manifest.source_fingerprint} itself, source=..."
            ) from None
        return _checked_source(manifest, source)


def _checked_source(manifest: Manifest, source: nn.Module | None) -> nn.Module:
    if source is None:
        raise SourceMismatch(
            f"thin bundle: expected its source network {manifest.source_fingerprint}, got none; "
            "pass source=..., or use the full payload"
        )
    got = fingerprint(source)
    if got != manifest.source_fingerprint:
        raise SourceMismatch(
            f"{manifest.payload} bundle: expected the source {manifest.source_fingerprint}, got {got}; "
            "pass the network it was cloned from"
        )
    return source


def _kept(bundle: Bundle, group: str, width: int) -> Tensor:
    kept = bundle.tensors.get(f"kept.{group}")
    ok = kept is not None and kept.dtype == torch.int32 and kept.ndim == 1 and 0 < len(kept) <= width
    if kept is None or not ok or int(kept.min()) < 0 or int(kept.max()) >= width or not bool((kept.diff() > 0).all()):
        raise BundleError(f"tensor 'kept.{group}': expected ascending int32 indices below {width}")
    return kept.long()


def _fill(bundle: Bundle, adapter: Adapter, tail: Tail, head: Head) -> None:
    """Put the bundle's tensors into the parts; every tensor is used exactly once."""
    wanted: dict[str, tuple[Tensor, partial[None]]] = {}
    for prefix, part in _learned_parts(adapter, tail, head):
        for name, tensor in part.state_dict().items():
            wanted[prefix + name] = (tensor, partial(_assign, part, name))
    if bundle.manifest.payload == "full":
        for name, tensor in copied_tensors(tail).items():
            wanted[MODULE_PREFIX + name] = (tensor, partial(_assign, tail.part, name))
    _check_names({*wanted, *(f"kept.{name}" for name in tail.gates)}, set(bundle.tensors))
    for name, (old, assign) in wanted.items():
        new = bundle.tensors[name]
        if new.shape != old.shape or new.dtype != old.dtype:
            raise BundleError(
                f"tensor {name!r}: expected {old.dtype} {tuple(old.shape)}, got {new.dtype} {tuple(new.shape)}"
            )
        assign(new)


def _check_names(expected: set[str], got: set[str]) -> None:
    missing, extra = sorted(expected - got), sorted(got - expected)
    if missing or extra:
        raise BundleError(f"bundle: missing tensors {missing[:4]}, unexpected tensors {extra[:4]}")


def _assign(part: nn.Module, name: str, tensor: Tensor) -> None:
    part.load_state_dict({name: tensor.clone()}, strict=False, assign=True)
