"""The checks of `alertrouter check`, one file each: its name is the id, its docstring the page in docs/checks.

A file without a `find` describes what the loader refuses; there the rules cannot be served at all.
"""
