"""Work on registered networks: import, check and judge them, and find their architecture."""
