"""Access: workspaces, API keys, the audit log and the authentication of requests."""
