"""Run every architecture of timm through the method, each in a process of its own."""
