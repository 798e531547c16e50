"""The page of operators: a program of its own that shows what is going on, and lets operators act."""
