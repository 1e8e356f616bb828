"""Deployments: the desired state, the gateway to the serving process, and rollouts."""
