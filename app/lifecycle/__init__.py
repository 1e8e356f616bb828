"""Life cycle of records: archive, purge, retention and garbage collection."""
