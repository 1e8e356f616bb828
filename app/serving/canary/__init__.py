"""Canaries: which set of modules answers a request, and how both sets compare."""
