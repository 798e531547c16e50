"""Breaks everything at once around real workers, and counts: ``make chaos``. Not shipped; see ``docs/chaos.md``."""
