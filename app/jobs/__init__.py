"""Cloning jobs: requests, their execution by workers, events and trials."""
