"""Jobs as processes of this machine: laid out in a folder each, confined, run by the supervisor's runners, gathered when they end."""
