"""Event streams: send a job's events to HTTP clients as they happen."""
