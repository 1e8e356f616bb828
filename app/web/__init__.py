"""The web pages, on the same functions of the zoo as the API.

A page is built for one visitor, reads through `PageContext`, and stays live over a websocket. Names
come from people: they are text, escaped by `markupsafe`, and never HTML.
"""
