"""Tools for testing code that enqueues, and jobs with the real worker. No other part of the library imports them."""
