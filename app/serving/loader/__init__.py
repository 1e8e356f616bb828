"""Loads the wanted deployments, and reports the result."""
