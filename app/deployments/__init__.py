"""Deployments: the wanted state, the gateway to serving, and rollouts."""
