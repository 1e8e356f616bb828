"""The serving process: answers predictions of deployments."""
