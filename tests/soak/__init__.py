"""Everything at once for a long time: jobs, uploads, predictions, swaps and bad input on one service.

`python -m tests.soak` prints how memory went and ends with `SOAK ` and one JSON object.
"""
