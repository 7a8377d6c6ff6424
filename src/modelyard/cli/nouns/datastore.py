from __future__ import annotations

from ...spec.nouns import NOUNS
from ..standard import standard

group = standard(NOUNS["datastore"], help={"delete": "Forget a datastore; what it holds stays where it is."})
