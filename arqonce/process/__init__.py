"""Processes: from settings to exit code, with signals, logs, health and what is opened and closed."""
