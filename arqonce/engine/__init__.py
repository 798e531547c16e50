"""Claims jobs, runs them and records their ends. Talks to Redis alone."""
