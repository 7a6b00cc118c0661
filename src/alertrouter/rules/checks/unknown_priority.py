"""A rule gives a priority that `alertrouter.yaml` does not have.

Write one of those under `priorities:`, or add it there with its severity.
"""
