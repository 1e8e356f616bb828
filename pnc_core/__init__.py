"""Partial Network Cloning in pure PyTorch: networks and tensors in, bundle out.

Shapes in docstrings: N images, C channels, H x W pixels, K cloned classes, D
features. T is the target, S the source, R_t and R_s positions in them, phi the
target's activation at R_t, A the adapter.

Importing this package does not import torch; the names below load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnc_core.bundle import Bundle, read_bundle
    from pnc_core.cloning import clone
    from pnc_core.composed import Composed, attach, detach
    from pnc_core.config import CloneConfig, NetworkSpec, Position
    from pnc_core.curves import masking_curve, position_curve
    from pnc_core.data import ImageSet, preprocess
    from pnc_core.evaluation import evaluate
    from pnc_core.evidence import verify_bundle
    from pnc_core.export import to_onnx, to_program, to_pt2
    from pnc_core.identity import fingerprint
    from pnc_core.networks import architectures, build_network, load_network, load_weights
    from pnc_core.rebalancing import rebalance

_HOME = {
    "Bundle": "bundle",
    "CloneConfig": "config",
    "Composed": "composed",
    "ImageSet": "data",
    "NetworkSpec": "config",
    "Position": "config",
    "architectures": "networks",
    "attach": "composed",
    "build_network": "networks",
    "clone": "cloning",
    "detach": "composed",
    "evaluate": "evaluation",
    "fingerprint": "identity",
    "load_network": "networks",
    "load_weights": "networks",
    "masking_curve": "curves",
    "position_curve": "curves",
    "preprocess": "data",
    "read_bundle": "bundle",
    "rebalance": "rebalancing",
    "to_onnx": "export",
    "to_program": "export",
    "to_pt2": "export",
    "verify_bundle": "evidence",
}
__all__ = [
    "Bundle",
    "CloneConfig",
    "Composed",
    "ImageSet",
    "NetworkSpec",
    "Position",
    "architectures",
    "attach",
    "build_network",
    "clone",
    "detach",
    "evaluate",
    "fingerprint",
    "load_network",
    "load_weights",
    "masking_curve",
    "position_curve",
    "preprocess",
    "read_bundle",
    "rebalance",
    "to_onnx",
    "to_program",
    "to_pt2",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pnc_core' has no attribute {name!r}")
    return getattr(import_module(f"pnc_core.{_HOME[name]}"), name)
