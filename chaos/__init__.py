"""Injects all faults at once around real workers, and checks every promise: ``make chaos``.

Not shipped; see ``docs/chaos.md``.
"""
