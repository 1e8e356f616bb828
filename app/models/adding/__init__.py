"""The page that adds a model: files are read in the browser, and nothing but their outline is sent before the end."""
