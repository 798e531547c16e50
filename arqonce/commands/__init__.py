"""The command line: one file for each command. An application adds its own."""
