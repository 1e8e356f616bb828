"""Shared parts of the web pages; pages and API call the same services.

A page is built for one visitor, reads rows through `PageContext`, and updates itself over a websocket. Names
come from users, so `markupsafe` escapes every name.
"""
