"""Rules kept in git: read, checked, compiled and evaluated. Only `load` touches files."""
