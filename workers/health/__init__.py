"""Signs of life of a worker, and the port on which it tells them."""
