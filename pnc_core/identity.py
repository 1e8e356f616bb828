"""Fingerprint of a network: a digest over every parameter and buffer."""

import hashlib

import torch
from torch import nn


def fingerprint(network: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a network's parameters and buffers.

    Args:
        network: Any module; neither it nor its mode is changed. Buffers count, so changed BatchNorm statistics change
            the fingerprint.

    Returns:
        `sha256:` and 64 hexadecimal digits, the same on every device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return f"sha256:{digest.hexdigest()}"
