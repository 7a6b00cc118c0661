"""Something is to be told that `alertrouter.yaml` has no destination for.

Write it as kind and name, `slack:alerts`, and name it under `destinations:`. `pagerduty` is always there.
"""
