"""Worker, relay and supervisor processes: from settings to exit code, with signals, logs, health and lifecycle."""
