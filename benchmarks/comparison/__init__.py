"""The task, data, training loop, baselines and cloning variants of the comparison."""
