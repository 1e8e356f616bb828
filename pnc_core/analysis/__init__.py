"""Measure modules and composed networks: accuracy, evidence, origin."""
