"""Execution of networks: queue, batches, limits and programs."""
