"""Fold re-parametrised layers into plain ones, on a copy of the network.

A re-parametrised layer computes its weight from other tensors: weight norm, spectral norm, pruning masks and everything
of `torch.nn.utils.parametrize`. A module is made of copies of plain weights, so that these are computed first.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from pnc_core.errors import NetworkError, is_out_of_memory

_Hook = WeightNorm | SpectralNorm | prune.BasePruningMethod
"""The older kind: a forward pre-hook computes the weight."""


def folded(network: nn.Module) -> nn.Module:
    """The network with plain weights only.

    Args:
        network: A network in eval mode; not changed.

    Returns:
        The network itself where no layer is re-parametrised; else a copy that shares the tensors of all other layers.

    Raises:
        NetworkError: a part of the network cannot be copied.
    """
    if not any(_hooks(m) or parametrize.is_parametrized(m) for m in network.modules()):
        return network
    twin = _twin(network)
    for layer in [*twin.modules()]:
        if _hooks(layer):
            _fold_hooks(layer)
        if parametrize.is_parametrized(layer):
            _fold_parametrizations(layer)
    return twin


def _hooks(layer: nn.Module) -> list[_Hook]:
    return [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _Hook)]


def _twin(network: nn.Module) -> nn.Module:
    """A copy that shares all tensors."""
    held = (value for m in network.modules() for value in vars(m).values() if isinstance(value, Tensor))
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers(), *held)}
    try:
        return copy.deepcopy(network, shared)
    except Exception as error:  # the network's own code may raise any error
        if is_out_of_memory(error):
            raise
        raise NetworkError(
            f"network: expected one that copy.deepcopy can copy, to fold its re-parametrised layers, got "
            f"{type(error).__name__}: {error}; fold them with torch.nn.utils.parametrize.remove_parametrizations, "
            "remove_weight_norm, remove_spectral_norm or prune.remove"
        ) from error


@torch.no_grad()
def _fold_hooks(layer: nn.Module) -> None:
    for tensors in (layer._parameters, layer._buffers):  # `prune.remove` writes into the tensors of its layer
        for name, tensor in tensors.items():
            if tensor is not None:
                tensors[name] = type(tensor)(tensor.detach().clone())  # type: ignore[assignment]
    for hook in reversed(_hooks(layer)):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
        else:
            prune.remove(layer, hook._tensor_name)


@torch.no_grad()
def _fold_parametrizations(layer: nn.Module) -> None:
    """By hand: `remove_parametrizations` changes the layer's class, which the given network's layer shares."""
    parts = layer.parametrizations
    assert isinstance(parts, nn.ModuleDict)
    values = {name: (getattr(layer, name).detach().clone(), _is_trained(part)) for name, part in parts.items()}
    layer.__class__ = type(layer).__bases__[0]
    del layer.parametrizations
    for name, (value, trained) in values.items():
        if trained:
            layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
        else:
            layer.register_buffer(name, value)


def _is_trained(part: nn.Module) -> bool:
    return any(name.startswith("original") for name, _ in part.named_parameters(recurse=False))
