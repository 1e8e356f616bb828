"""Workers: take a row, run it in a fresh child process, report through rows."""
