"""Settings from the environment and from secret files. Nothing is read on import."""
