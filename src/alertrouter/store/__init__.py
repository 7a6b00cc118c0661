"""All of Redis: keys, scripts, the embedded server and the clock."""
