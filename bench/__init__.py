"""Measurements. Run by hand or by make; nothing is asserted about time in tests."""
