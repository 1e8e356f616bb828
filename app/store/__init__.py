"""Immutable objects named by their digest, and uploads."""
