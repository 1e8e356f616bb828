"""Work of commands on files of the user's machine, without a service."""
