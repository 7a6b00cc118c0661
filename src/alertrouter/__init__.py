"""alertrouter: between your alerts and your pager."""

__version__ = "0.1.0"
