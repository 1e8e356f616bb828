"""The JSON types of the HTTP API: one set for the service and its client."""
