"""A cloned module: its parts, its file, and the composed network."""
