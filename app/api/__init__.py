"""HTTP: one router a resource; a route parses, calls one zoo function and returns."""
