"""Heads: fit them, choose one, and put a locality gate in front of it."""
