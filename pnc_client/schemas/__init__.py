"""JSON types of the HTTP API, shared by the service and its client."""
