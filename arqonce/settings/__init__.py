"""Settings from the environment and from secret files. Nothing is read before it is asked for."""
