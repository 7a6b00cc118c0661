"""A YAML file in the rules directory from which nothing is read.

Rules are read from `global.yaml`, `router.yaml`, `unrouted.yaml` and `services/*.yaml`, settings from
`alertrouter.yaml`. Rename the file, move its rules, or keep it elsewhere.
"""
