"""Immutable objects named by their digest, and uploads on their way in."""
