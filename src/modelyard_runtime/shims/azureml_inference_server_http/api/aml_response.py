"""A response with a status and headers of its own."""

import json

from werkzeug.wrappers import Response


class AMLResponse(Response):
    """`message` is the body: text, bytes, or with `json_str` any value that has a JSON form."""

    default_mimetype = "text/html"

    def __init__(self, message, status_code, response_headers=None, json_str=False, run_function_failed=False):
        body = json.dumps(message) if json_str else message
        kind = "application/json" if json_str else None
        super().__init__(body, status=status_code, headers=response_headers, content_type=kind)
        self.run_function_failed = run_function_failed
