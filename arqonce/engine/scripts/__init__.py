"""The scripts that Redis runs for the engine: each does atomically what would take several round trips."""
