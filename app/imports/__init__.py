"""Imports of networks that workers run."""
