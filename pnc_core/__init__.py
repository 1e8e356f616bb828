"""Partial Network Cloning in pure PyTorch: networks and tensors in, bundle out.

Shapes in docstrings: N images, C channels, H x W pixels, K cloned classes, D
features. T is the target, S the source, R_t and R_s positions in them, phi the
target's activation at R_t, A the adapter.

Importing this package does not import torch; the names below load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnc_core.analysis.curves import masking_curve, position_curve
    from pnc_core.analysis.evaluation import evaluate
    from pnc_core.analysis.evidence import verify_bundle
    from pnc_core.config import CloneConfig, NetworkSpec, Position
    from pnc_core.graph.architectures import architectures, build_network, load_network, load_weights
    from pnc_core.identity import fingerprint
    from pnc_core.images import ImageSet, Views, preprocess, views_of
    from pnc_core.method.balance import rebalance
    from pnc_core.method.clone import clone
    from pnc_core.method.composing.compose import compose
    from pnc_core.method.composing.extend import Online, extend
    from pnc_core.module.bundle import Bundle, read_bundle
    from pnc_core.module.composed import Composed, attach, detach
    from pnc_core.module.composition import Composition, read_composition
    from pnc_core.module.export import to_onnx, to_program, to_pt2
    from pnc_core.preprocessing import Preprocessing

_HOME = {
    "Bundle": "module.bundle",
    "CloneConfig": "config",
    "Composed": "module.composed",
    "Composition": "module.composition",
    "ImageSet": "images",
    "NetworkSpec": "config",
    "Online": "method.composing.extend",
    "Position": "config",
    "Preprocessing": "preprocessing",
    "Views": "images",
    "architectures": "graph.architectures",
    "attach": "module.composed",
    "build_network": "graph.architectures",
    "clone": "method.clone",
    "compose": "method.composing.compose",
    "detach": "module.composed",
    "evaluate": "analysis.evaluation",
    "extend": "method.composing.extend",
    "fingerprint": "identity",
    "load_network": "graph.architectures",
    "load_weights": "graph.architectures",
    "masking_curve": "analysis.curves",
    "position_curve": "analysis.curves",
    "preprocess": "images",
    "read_bundle": "module.bundle",
    "read_composition": "module.composition",
    "rebalance": "method.balance",
    "to_onnx": "module.export",
    "to_program": "module.export",
    "to_pt2": "module.export",
    "verify_bundle": "analysis.evidence",
    "views_of": "images",
}
__all__ = [
    "Bundle",
    "CloneConfig",
    "Composed",
    "Composition",
    "ImageSet",
    "NetworkSpec",
    "Online",
    "Position",
    "Preprocessing",
    "Views",
    "architectures",
    "attach",
    "build_network",
    "clone",
    "compose",
    "detach",
    "evaluate",
    "extend",
    "fingerprint",
    "load_network",
    "load_weights",
    "masking_curve",
    "position_curve",
    "preprocess",
    "read_bundle",
    "read_composition",
    "rebalance",
    "to_onnx",
    "to_program",
    "to_pt2",
    "verify_bundle",
    "views_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pnc_core' has no attribute {name!r}")
    return getattr(import_module(f"pnc_core.{_HOME[name]}"), name)
