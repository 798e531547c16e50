"""Tools for tests: of code that enqueues, and of jobs, which run the real worker. Nothing else here imports them."""
