"""Runs jobs, uploads, predictions, swaps and bad input at the same time on one service, for a long time.

`python -m tests.soak` reports memory and consistency; its last line is `SOAK ` and one JSON object.
"""
