"""Breaks the running service in every way it must survive, at random moments, and counts what went wrong.

make chaos
python -m tests.chaos --faults 0 --jobs 200 --workers 4 --every 5 --kinds runner,runner,worker --short \\
    --relentless --attempts 20
"""
