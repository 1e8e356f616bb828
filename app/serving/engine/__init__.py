"""Runs networks: turns, batches, limits, and the programs that are run."""
