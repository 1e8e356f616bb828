"""Shared parts of the HTTP API. A route parses its request, calls one function of a service, and answers."""
