"""`@rawhttp`: `run` gets the request instead of its body, and answers with an `AMLResponse` or a plain value."""

from werkzeug.wrappers import Request


class AMLRequest(Request):
    """The request as werkzeug (and so Flask) gives it: method, args, headers, json, files, get_data() …"""


def rawhttp(function):
    """Mark `run` as one that takes the request."""
    if getattr(function, "input_schemas", None) is not None:
        raise ValueError("@rawhttp cannot be combined with @input_schema")
    function.is_raw_http = True
    return function
