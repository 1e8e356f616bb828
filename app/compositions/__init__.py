"""Compositions: numbers that a set of modules needs on one target; a worker fits them."""
