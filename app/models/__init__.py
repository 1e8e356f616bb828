"""Models, their immutable versions, and aliases."""
