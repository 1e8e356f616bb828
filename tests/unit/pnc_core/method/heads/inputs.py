"""Inputs of a head with a known answer."""

import torch

from pnc_core.method.heads.fit import HeadInputs

OLD, NEW, FEATURES = 3, 2, 6


def inputs(count: int = 200, seed: int = 0, gap: float = 3.0, confused: bool = True) -> HeadInputs:
    """Both networks are equally sure on all images; only the first tap separates old from new, by `gap`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, OLD + NEW, (count,), generator=generator)
    logits = torch.randn(count, OLD + NEW, generator=generator)
    logits[torch.arange(count), labels] += 6
    features = 10 + 4 * torch.randn(count, FEATURES, generator=generator)
    features[:, 0] = 5 + gap * (labels >= OLD) + 0.1 * torch.randn(count, generator=generator)
    old, own = logits[:, :OLD], logits[:, OLD:]
    if confused:
        rows, is_old = torch.arange(count), labels < OLD
        own[rows[is_old], torch.randint(0, NEW, (int(is_old.sum()),), generator=generator)] += 6
        old[rows[~is_old], torch.randint(0, OLD, (int((~is_old).sum()),), generator=generator)] += 6
    return HeadInputs(old, own, features, labels)
