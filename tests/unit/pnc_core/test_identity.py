import copy
import re

import torch
from torch import nn

from pnc_core.identity import fingerprint


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_a_copy_has_the_same_fingerprint() -> None:
    network = _network()
    found = fingerprint(network)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found)
    assert found == fingerprint(copy.deepcopy(network)) == fingerprint(network.train())


def test_one_changed_bit_of_a_weight_or_buffer_is_noticed() -> None:
    network = _network()
    before = fingerprint(network)
    network[0].weight.data.view(torch.int32)[0, 0, 0, 0] ^= 1
    changed = fingerprint(network)
    network[1].running_mean[0] += 1
    assert len({before, changed, fingerprint(network)}) == 3


def test_minus_zero_is_not_zero() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.zero_()
    before = fingerprint(network)
    network.weight.data.neg_()
    assert fingerprint(network) != before


def test_shape_dtype_and_names_count() -> None:
    zeros = [nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False), nn.Linear(2, 3, bias=False).half()]
    for module in zeros:
        module.weight.data.zero_()
    found = {fingerprint(module) for module in (*zeros, nn.Sequential(zeros[0]))}
    assert len(found) == 4
