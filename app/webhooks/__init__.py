"""Webhooks: subscriptions and the outbox of messages."""
