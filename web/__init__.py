"""The HTTP service: reads users from PostgreSQL, accepts jobs for the workers. A composition root, like ``worker``."""
