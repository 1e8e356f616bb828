"""The commands of `pnc`, one file for each group."""
