"""What happened, to be read again: the entries of the history, and the files that they are kept in."""
