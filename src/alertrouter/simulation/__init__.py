"""The whole path on a clock of its own: the store's scripts and the worker as in `serve`, PagerDuty in memory."""
