"""The command line, ``users-worker``: one file for each command."""
