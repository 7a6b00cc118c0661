"""From the record to the destination: what is missing, when, and the worker that sends it."""
