"""The online part: serves deployments, the only place in `app` that loads torch."""
