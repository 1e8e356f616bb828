"""A second set of modules of a deployment, which answers a share of its requests or runs beside them."""
