"""The way of a request: router, connection to a replica, model server, the thread that runs user code. Adds httptools, uvloop and orjson."""
