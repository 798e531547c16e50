"""A project of somebody else: one table and one job, for the workers of users-worker."""
