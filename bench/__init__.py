"""Benchmarks, run by hand or by make. Tests assert nothing about times."""
