"""The service around the library: zoo, API, serving, client and command line."""
