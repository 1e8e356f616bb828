"""Archive, purge, retention and garbage collection of every kind of record."""
