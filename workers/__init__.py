"""Workers: claim a row, run it in a new child process, and write the result to rows."""
