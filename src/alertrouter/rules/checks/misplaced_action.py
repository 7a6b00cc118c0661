"""An action stands where it is not allowed.

The same table as PagerDuty's: the router only routes, a catch-all leads to no other set, and an alert that has no
service can be given one, but not be kept from paging. Move the action to `global.yaml` or to the service's file.
"""
