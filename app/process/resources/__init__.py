"""Processors and memory that this process may use."""
