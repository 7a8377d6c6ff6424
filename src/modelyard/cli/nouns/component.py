from __future__ import annotations

from ...spec.nouns import NOUNS
from ..standard import standard

group = standard(NOUNS["component"], help={"create": "Create a component from YAML."})
