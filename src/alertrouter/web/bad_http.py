"""A client that sends what is no HTTP, or goes away in the middle: aiohttp logs that as an error, with a traceback. Not here.

Anybody can do so, without a token, and as often as they like.
"""

from __future__ import annotations

import logging

import structlog
from aiohttp.http_exceptions import HttpProcessingError

_log = structlog.get_logger()


def quiet_about_bad_http() -> None:
    """Log what a client does wrong as a line for debugging, by its kind alone. Our own faults stay errors."""
    logger = logging.getLogger("aiohttp.server")
    if _is_our_fault not in logger.filters:
        logger.addFilter(_is_our_fault)


def _is_our_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | ConnectionError):
        _log.debug("a request that cannot be answered", reason=type(error).__name__)
        return False
    return True
