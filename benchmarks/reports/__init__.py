"""Records, tables and facts of the machine, as the benchmarks write them."""
