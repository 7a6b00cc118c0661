"""A rule routes to a set that its file does not have.

Outside the router `route_to` names a set under `sets:` of the same file. A service is named in `router.yaml` only.
"""
