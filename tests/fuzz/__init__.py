"""Sends thousands of random and hostile requests and files to the real application."""
