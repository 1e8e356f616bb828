"""Workspaces, keys, the audit log, and the check of every request."""
