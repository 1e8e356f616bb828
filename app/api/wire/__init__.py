"""What goes over the wire: bodies of requests (unknown fields refused) and of answers."""
