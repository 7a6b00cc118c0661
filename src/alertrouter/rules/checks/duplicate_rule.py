"""Two rules have one name.

A rule is known by its name alone in logs, metrics, tests and `alertrouter explain`, whichever file it stands in. Give
the second one a name of its own, for example with the service in front: `payments-late-at-night`.
"""
