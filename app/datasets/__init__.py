"""Datasets, and the sandbox that decodes their images."""
