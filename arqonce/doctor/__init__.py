"""Examines the servers that a worker uses, their settings against each other, and the state of the ledger."""
