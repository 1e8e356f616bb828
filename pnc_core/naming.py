"""What positions are called: after the modules that end at them, as the network's author knows them."""

from torch import fx


class Names:
    """Names that were given; a name that comes again gets a number."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """`name` the first time, then `name#2` and so on."""
        count = self._used[name] = self._used.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def position_name(node: fx.Node, following: fx.Node | None) -> str:
    """The innermost container that ends at `node`, else the leaf module, else the node.

    Args:
        node: The position's node in the traced graph.
        following: The next node through which all data flow, if there is one.
    """
    stack = [path for path in _stack(node) if path]
    later = set(_stack(following)) if following is not None else set()
    ended = [path for path in stack if path not in later and path != node.target]
    if ended:
        return ended[-1]
    return str(node.target) if node.op == "call_module" else node.name


def _stack(node: fx.Node) -> list[str]:
    return [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
