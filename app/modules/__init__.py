"""Cloned modules, their bundles and signatures."""
