"""Fit heads and choose one."""
