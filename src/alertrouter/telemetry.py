"""Every metric, defined once, and the set-up of logs.

Labels come from closed sets only: senders, outcomes, destinations of the rules, the first 500 rule names.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Literal

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from alertrouter.log_lines import as_json, listed_fields, one_terminal_line, plain_values

REGISTRY = CollectorRegistry()

WEBHOOKS = Counter("alertrouter_webhooks_total", "Webhook requests answered.", ["source", "status"], registry=REGISTRY)
WEBHOOK_CREDENTIALS = Counter(
    "alertrouter_webhook_credentials_total",
    "Webhooks admitted, by the name of the token or signing secret they showed: one that no longer grows can go.",
    ["source", "token"],
    registry=REGISTRY,
)
CREDENTIALS_MISSING = Gauge(
    "alertrouter_webhook_credentials_missing",
    "Tokens and signing secrets of alertrouter.yaml that cannot be read; what was read before stays in force.",
    registry=REGISTRY,
)
ALERTS_RECEIVED = Counter(
    "alertrouter_alerts_received_total",
    "Alerts received, by what they were: news (new, episode, severity, content, status, refresh, again), duplicate, stale, "
    "heartbeat, ignored or skipped; while Redis is away sent_directly, kept_for_redis, suppressed or dropped.",
    ["source", "outcome"],
    registry=REGISTRY,
)
ALERTS_TRUNCATED = Counter(
    "alertrouter_alerts_truncated_total",
    "Alerts the sender says it cut off (Alertmanager's max_alerts): they were never received.",
    ["source"],
    registry=REGISTRY,
)
ALERTS_ENDED = Counter(
    "alertrouter_alerts_ended_total", "Accepted news, by how it ended.", ["outcome"], registry=REGISTRY
)
SENDS = Counter(
    "alertrouter_sends_total",
    "Calls to destinations, by what came back: delivered, again, refused.",
    ["destination", "outcome"],
    registry=REGISTRY,
)
CHANGES = Counter(
    "alertrouter_changes_total",
    "Change events: accepted, no_room, and by what came back from PagerDuty: delivered, again, refused.",
    ["outcome"],
    registry=REGISTRY,
)
DIRECT_SENDS = Counter(
    "alertrouter_direct_sends_total",
    "Calls to PagerDuty past Redis, by what came back: delivered, again, refused.",
    ["outcome"],
    registry=REGISTRY,
)
DIRECT_PATH = Gauge(
    "alertrouter_direct_path", "1 while alerts are sent past Redis because it is away, else 0.", registry=REGISTRY
)
JOURNAL_BYTES = Gauge(
    "alertrouter_journal_bytes", "What was sent past Redis and Redis has not been told of yet.", registry=REGISTRY
)
SEND_SECONDS = Histogram(
    "alertrouter_send_seconds",
    "Duration of one call to a destination.",
    registry=REGISTRY,
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
DELIVERY_SECONDS = Histogram(
    "alertrouter_delivery_seconds",
    "From the newest sighting of an alert to its confirmed delivery.",
    registry=REGISTRY,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
RULE_MATCHES = Counter("alertrouter_rule_matches_total", "Alerts a rule matched.", ["rule"], registry=REGISTRY)
RULE_ERRORS = Counter(
    "alertrouter_rule_errors_total",
    "Alerts whose evaluation failed by a fault of ours; they went to the default destination.",
    registry=REGISTRY,
)
RULES_LAST_RELOAD_SUCCESSFUL = Gauge(
    "alertrouter_rules_last_reload_successful", "1 if the last load of the rules succeeded, else 0.", registry=REGISTRY
)
RULES_LAST_RELOAD_TIMESTAMP = Gauge(
    "alertrouter_rules_last_reload_success_timestamp_seconds",
    "When the active rules were loaded.",
    registry=REGISTRY,
)
RULES_INFO = Gauge(
    "alertrouter_rules_info",
    "1 for the rules in force: hash of their files, and the git commit they came from.",
    ["version", "revision"],
    registry=REGISTRY,
)
RULES_QUARANTINED = Gauge(
    "alertrouter_rules_quarantined_services", "Services whose file is faulty and set aside.", registry=REGISTRY
)
SILENCES = Gauge("alertrouter_silences", "Silences in force.", registry=REGISTRY)
QUEUE = Gauge(
    "alertrouter_queue_records",
    "Records due to be judged, scheduled for later, waiting to be sent, leased to a worker, and dead-lettered.",
    ["queue"],
    registry=REGISTRY,
)
DEAD_LETTERS_LET_GO = Counter(
    "alertrouter_dead_letters_let_go_total",
    "Dead letters that had to leave Redis for newer ones: to a file, to the log, or for another body of their sender.",
    ["to"],
    registry=REGISTRY,
)
BOUND_SHARE = Gauge(
    "alertrouter_bound_share",
    "How full what is bounded is, from 0 to 1: pending, redis-memory, dead-letters. Alerts are refused from 0.8.",
    ["bound"],
    registry=REGISTRY,
)
ALERTS_REFUSED = Counter(
    "alertrouter_alerts_refused_total",
    "Alerts that there was no room for: their sender was asked to try again.",
    ["severity"],
    registry=REGISTRY,
)
REDIS_UP = Gauge("alertrouter_redis_up", "1 if Redis answered when it was last asked.", registry=REGISTRY)
AUTO_RESOLVED = Counter(
    "alertrouter_alerts_auto_resolved_total",
    "Alerts resolved because their sender, which repeats them, did not for too long.",
    registry=REGISTRY,
)
CLOCK_AHEAD = Gauge(
    "alertrouter_clock_ahead_seconds",
    "The time that timers run on minus Redis' clock: other than 0 after somebody set that clock.",
    registry=REGISTRY,
)
REDIS_CLOCK_SKEW = Gauge(
    "alertrouter_redis_clock_skew_seconds", "This machine's clock minus Redis' clock.", registry=REGISTRY
)
HISTORY_WRITTEN = Counter(
    "alertrouter_history_written_total", "Entries of the history written to files.", registry=REGISTRY
)
HISTORY_LOST = Counter(
    "alertrouter_history_lost_total",
    "Entries of the history that Redis let go of before they could be written to a file.",
    registry=REGISTRY,
)
SHADOW_JUDGED = Counter("alertrouter_shadow_judged_total", "Alerts the shadow rules judged.", registry=REGISTRY)
SHADOW_DIFFERENCES = Counter(
    "alertrouter_shadow_differences_total",
    "Alerts the shadow rules judged otherwise than the live ones, by what differs: verdict, service, severity, "
    "priority, destinations or dedup_key.",
    ["field"],
    registry=REGISTRY,
)
SHADOW_SKIPPED = Counter(
    "alertrouter_shadow_skipped_total",
    "Alerts the shadow rules did not judge, because they fell behind or Redis was away.",
    registry=REGISTRY,
)
SHADOW_RULES_LOADED = Gauge(
    "alertrouter_shadow_rules_loaded", "1 if the last load of the shadow rules succeeded, else 0.", registry=REGISTRY
)
HEARTBEATS_SILENT = Gauge(
    "alertrouter_heartbeats_silent", "Heartbeats of alertrouter.yaml that are not heard.", registry=REGISTRY
)
CANARY_LOST = Gauge(
    "alertrouter_canary_lost", "1 while the alert that we send ourselves is not judged.", registry=REGISTRY
)
PAGERDUTY_FAILING_SINCE = Gauge(
    "alertrouter_pagerduty_failing_since_timestamp_seconds",
    "When the first of the calls was that PagerDuty has not answered since; 0 while it answers.",
    registry=REGISTRY,
)
CONNECTIONS = Gauge("alertrouter_connections", "Connections that clients have open.", registry=REGISTRY)
CONNECTIONS_CUT = Counter(
    "alertrouter_connections_cut_total",
    "Connections ended because their client took too long for its head or body or to read an answer, or because there "
    "were too_many.",
    ["what"],
    registry=REGISTRY,
)
BUILD_INFO = Gauge("alertrouter_build_info", "Version of the running program.", ["version"], registry=REGISTRY)

_MOST_RULE_LABELS = 500
_rule_labels: set[str] = set()


def count_rule_match(rule: str) -> None:
    """Count a match of `rule` under its name, or under "other" past the first 500 names."""
    if rule not in _rule_labels:
        if len(_rule_labels) >= _MOST_RULE_LABELS:
            rule = "other"
        else:
            _rule_labels.add(rule)
    RULE_MATCHES.labels(rule).inc()


def set_up_logging(log_format: Literal["json", "console"], level: str) -> None:
    """Log lines go to standard error: JSON for machines, or coloured text for people. Those of libraries, too."""
    as_text: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer(serializer=as_json)]
        if log_format == "json"
        else [one_terminal_line, structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # without the locals of its frames: they hold secrets
            listed_fields,
            plain_values,
            *as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _Forwarding) for handler in root.handlers):
        root.addHandler(_Forwarding(logging.WARNING))
    logging.captureWarnings(True)


class _Forwarding(logging.Handler):
    """Hands the log lines of libraries to ours, so that there is one form and one place that hides secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            # its text shows the line of the request that is wrong, which may be the one with the token
            structlog.get_logger().warning("a request that is no HTTP", error=type(error).__name__)
            return
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # libraries have levels between
        structlog.get_logger().log(level, record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


def log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends the program, as a log line: for `sys.excepthook`."""
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger().critical("a fault of this program ends it", exc_info=(kind, error, trace))
