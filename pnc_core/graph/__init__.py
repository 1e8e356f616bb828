"""Read a network: trace it, find its positions, channel groups and cost."""
