"""Parts of every process: logs, traces, the HTTP server, threads and child processes."""
