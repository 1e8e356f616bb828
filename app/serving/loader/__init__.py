"""Brings what is served to what is wanted, and reports it."""
