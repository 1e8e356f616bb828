"""What commands do on the user's own machine, with files and without a service."""
