"""The PagerDuty stand-in: takes events as PagerDuty does, shows them, and fails on demand. Loopback only."""

from alertrouter.sandbox.events_api import Call, Result
from alertrouter.sandbox.server import Sandbox

__all__ = ["Call", "Result", "Sandbox"]
