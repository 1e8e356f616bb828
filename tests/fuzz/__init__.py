"""Requests and files that nobody would think of, thousands of them, against the real application."""
