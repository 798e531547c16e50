"""Kills a worker at every point of a job, and compares the job's end with that of a clean run."""
