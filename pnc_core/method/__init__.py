"""The cloning method: from two networks and images to a module."""
