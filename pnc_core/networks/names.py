"""Names of tensors as training scripts write them, and the network's own names behind them.

References:
    Own choice. The prefixes are those of `DataParallel`, `torch.compile`, Lightning and common training scripts.
"""

import re
from collections.abc import Collection, Iterable

PLAIN = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module",
    "model_params", "net_state_dict",
)  # fmt: skip
"""Keys under which training scripts keep the trained weights."""
AVERAGED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema", "ema_model", "model_ema_state_dict",
    "model_averaged",
)  # fmt: skip
"""Keys of the exponential moving average of the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.")
"""Prefixes of a wrapper around the network; several may stand one behind another."""
COUNTERS = frozenset({"n_averaged", "total_ops", "total_params"})
"""Last parts of names that averaging of weights and counters of operations leave behind."""
_COMPILED = "_orig_mod."
_TRAINING = re.compile(r"(criterion|loss|loss_\w+|\w+_loss|metrics?|\w+_metrics?|\w+_acc|\w+_accuracy)\.")
"""First parts of names that belong to the training loop, not to the network."""


def own_names(names: Collection[str]) -> dict[str, str]:
    """Find the network's own name of each tensor.

    A prefix is removed where more than half of the names have it and no two names become equal. Counters and tensors of
    the training loop have no name in the result.

    Args:
        names: Names as in the file, in its order.

    Returns:
        The own name by the name in the file, in the same order.
    """
    found = {name: name for name in names if name.rpartition(".")[2] not in COUNTERS}
    wrapped = True
    while wrapped:
        found, wrapped = _unwrapped(found)
    kept = {old: new for old, new in found.items() if not _TRAINING.match(new)}
    return kept or found


def _unwrapped(names: dict[str, str]) -> tuple[dict[str, str], bool]:
    compiled = {old: new.replace(_COMPILED, "") for old, new in names.items()}
    if compiled != names and _distinct(compiled.values()):
        return compiled, True
    for prefix in PREFIXES:
        if 2 * sum(new.startswith(prefix) for new in names.values()) > len(names):
            shorter = {old: new.removeprefix(prefix) for old, new in names.items()}
            if _distinct(shorter.values()):
                return shorter, True
    return names, False


def uncounted(names: Collection[str]) -> list[str]:
    """Batch norms without the counter `num_batches_tracked`, which torch writes since version 0.4.1.

    Returns:
        Paths of these layers, such as `layer1.0.bn1`.
    """
    layers = [name.removesuffix(".running_var") for name in names if name.endswith(".running_var")]
    known = set(names)
    return [path for path in layers if f"{path}.running_mean" in known and f"{path}.num_batches_tracked" not in known]


def _distinct(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) == len(listed) and "" not in listed
