"""Sets lead back to themselves.

An alert that enters would never come out. Let one of the rules end the way instead of routing on.
"""
