"""Tools for tests of jobs: they run the real worker, which nothing else in this package may import."""
