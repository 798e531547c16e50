"""The command line: one file for each command. Applications add their own commands."""
