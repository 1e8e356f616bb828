"""Compositions: fit the numbers that several modules need together on one target."""
