"""Parts of forms: fields, choices, dropped files, and secrets that are shown once."""
