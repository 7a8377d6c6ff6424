"""`Collector`: a scoring script hands over frames of inputs and outputs; they are stored as JSON lines beside the deployment's logs."""

from .collector import Collector

__all__ = ["Collector"]
