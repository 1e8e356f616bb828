"""The OpenAPI document: examples, and its pages for people."""
