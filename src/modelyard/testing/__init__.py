"""For tests of modelyard and of what is built for it: yards as processes and in this process, drivers in memory, and for each port a
suite that every driver of it passes. Nothing of the program imports it."""
