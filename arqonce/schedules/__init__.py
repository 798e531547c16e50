"""Schedules: when jobs are due again and again, and the promise of each slot. Needs no leader."""
