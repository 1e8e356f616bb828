"""Parts of every process: logs, traces, the HTTP server and child processes."""
