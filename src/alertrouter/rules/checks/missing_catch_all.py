"""The router does not say what becomes of an alert that no rule wants.

Only with a catch-all does every alert reach somebody. `unrouted` pages through the default key and marks the alert.

    catch_all: {route_to: unrouted}
"""
