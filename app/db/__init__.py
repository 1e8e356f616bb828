"""The database: engine, sessions, shared columns, leases, and rules for all tables."""
