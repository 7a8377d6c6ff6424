"""The composition root: settings, database, drivers, features, dialects, loops composed into one yard. Nobody imports it.

`features` is the list of what a yard can do, `compose` puts it over the drivers, `home` opens and locks the data folder, `asgi` is what
answers requests, `serve` runs it all, and `maintenance` is what an operator does beside it.
"""
