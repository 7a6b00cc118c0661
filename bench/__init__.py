"""Measurements. Prints one table, asserts nothing: compare ratios within one run, not numbers between machines."""
