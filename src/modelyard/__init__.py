"""modelyard: the whole Azure Machine Learning lifecycle as one Python program you run yourself.

`from modelyard import MLClient, command, Input, Output, load_job` gives the names of `azure.ai.ml`; each is imported
when it is first used, so that importing modelyard costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
