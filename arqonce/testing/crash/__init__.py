"""Kills a worker at every point of a job, and compares how the job ends."""
