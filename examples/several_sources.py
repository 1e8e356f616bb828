"""One target with modules of two sources, without a server: digits 5 to 7 of the first, 7 to 9 of the second."""

import torch
from rich.progress import Progress

from app.demo import Network, handwritten, trained
from pnc_core import CloneConfig, attach, clone, detach, evaluate, fingerprint, rebalance

torch.set_num_threads(1)  # networks of this size are slower on several threads
generator = torch.Generator().manual_seed(0)
learned, test = handwritten().split(0.3, generator)
_, few = learned.split(0.3, generator)


def network(digits: str, progress: Progress) -> Network:
    return trained(learned.only(tuple(digits)), generator, progress, f"training on {digits}")


with Progress() as progress:
    target, first, second = (network(digits, progress) for digits in ("01234", "567", "789"))
modules = [
    clone(target, source, few, CloneConfig(classes=tuple(digits), preset="fast"))
    for source, digits in ((first, "567"), (second, "789"))
]

before = fingerprint(target[0])
composed = attach(attach(target[0], modules[0]), modules[1])
print("classes:   ", " ".join(composed.classes))
print("as they are", f"{evaluate(composed, test).average:.3f}")
print("in balance ", f"{evaluate(rebalance(composed, few), test).average:.3f}")
print("one head   ", f"{evaluate(rebalance(composed, few, head='joint', augmentation='shift'), test).average:.3f}")
assert detach(composed) is target[0]
assert fingerprint(target[0]) == before
