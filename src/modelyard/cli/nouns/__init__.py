"""A file for each noun that has more than the standard commands, or differs in them; each defines `group`."""
