"""The router routes to a service that has no file.

A service is a file in `services/`. Create `services/<name>.yaml`, which may be as short as `team: <team>`, or write the
name of one that is there.
"""
