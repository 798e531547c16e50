"""A project of somebody else: one table, one job, and a command, with arqonce."""
