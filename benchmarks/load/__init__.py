"""Parts of the load model: rows of a large zoo, periodic work of processes, and demand by numbers of processes."""
