"""The page that asks for a job: what a target should learn, from which source, and on which images."""
