"""The database: engine, sessions, shared columns, leases, and rules that every table keeps."""
