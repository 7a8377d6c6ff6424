"""What an operator must hear of: it stands in the log, in `/readyz` and in the metrics until it is over."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Alarms:
    """Of one server. A code says what is wrong, a subject with which part; both are shown to operators, to strangers the codes alone."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, str], str] = {}

    def sound(self, code: str, subject: str, message: str) -> bool:
        """Whether it is news. Logged once, however often it is sounded."""
        news = (code, subject) not in self._messages
        self._messages[code, subject] = message
        if news:
            log.critical("alarm %s: %s: %s", code, subject, message)
        return news

    def end(self, code: str, still: set[str] | None = None) -> None:
        """End the alarms of a code, but for the subjects that are `still` wrong."""
        for key in [key for key in self._messages if key[0] == code and key[1] not in (still or ())]:
            del self._messages[key]
            log.warning("alarm %s: %s: over", *key)

    def counts(self) -> dict[str, int]:
        """code → how many subjects."""
        counted: dict[str, int] = {}
        for code, _ in self._messages:
            counted[code] = counted.get(code, 0) + 1
        return counted
