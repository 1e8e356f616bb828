"""Servers, workers, load and prepared zoos for benchmarks of the running service."""
