"""Cloning jobs: requests, runs by workers, events and trials."""
