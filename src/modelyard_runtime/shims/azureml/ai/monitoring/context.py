"""Which inputs belong to which outputs."""

import uuid


class CorrelationContext:
    """Carries the id that rows of one request share."""

    def __init__(self, id=None):
        self._id = id or str(uuid.uuid4())

    def get_id(self):
        return self._id

    def get_headers(self):
        return {}


class BasicCorrelationContext(CorrelationContext):
    """A context with an id of the caller's."""
