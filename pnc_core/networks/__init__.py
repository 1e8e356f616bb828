"""Networks as people have them: checkpoint files, and the architectures that are published for small images."""
