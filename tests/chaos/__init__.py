"""Causes faults in a running service at random moments, and counts broken promises.

make chaos
python -m tests.chaos --faults 0 --jobs 200 --workers 4 --every 5 --kinds runner,runner,worker --short \\
    --relentless --attempts 20
"""
