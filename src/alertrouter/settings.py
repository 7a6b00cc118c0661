"""The only reader of the environment and of alertrouter.yaml's settings.

Each setting has one name: field `pagerduty_events_url` is the variable ALERTROUTER_PAGERDUTY_EVENTS_URL and the key
`pagerduty_events_url` under `settings:` in alertrouter.yaml. Options win over the environment, the environment over
the file. A secret is never read from the file; NAME_FILE names a file that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from alertrouter.errors import SettingsInvalid
from alertrouter.limits import LIMITS, Limits
from alertrouter.loopback import is_loopback

PREFIX = "ALERTROUTER_"
#: Kubernetes sets variables such as ALERTROUTER_SERVICE_HOST for a Service named alertrouter.
_FOREIGN_VARIABLE = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_.*)")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_ROUTING_KEY = re.compile(r"[0-9A-Za-z]{32}")
_SECRETS = frozenset(
    {
        "api_operate_tokens",
        "api_read_tokens",
        "redis_url",
        "pagerduty_routing_key",
        "pagerduty_fallback_routing_key",
        "pagerduty_self_routing_key",
        "outgoing_proxy",
        "second_channel_smtp_url",
        "second_channel_webhook_secret",
        "second_channel_webhook_url",
        "webhook_tokens",
    }
)


class Settings(BaseModel):
    """All settings of the service. Durations are milliseconds here and texts such as 5m or 1h30m outside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = "127.0.0.1:9087"
    #: Where health and metrics are, instead of beside the rest; "" for beside it.
    operations_listen: str = ""
    redis_url: SecretStr | None = None
    redis_wait_replicas: int = Field(default=0, ge=0, le=16)
    instance: str = Field(default="main", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    data_dir: Path = Path("data")
    rules: Path = Path("rules")
    pagerduty_events_url: str = "https://events.pagerduty.com"
    pagerduty_routing_key: SecretStr | None = None
    pagerduty_fallback_routing_key: SecretStr | None = None
    pagerduty_self_routing_key: SecretStr | None = None
    pagerduty_calls_per_minute: int = Field(default=110, ge=0)
    outgoing_hosts: tuple[str, ...] = ()
    outgoing_proxy: SecretStr | None = None
    webhook_tokens: tuple[SecretStr, ...] = ()
    api_read_tokens: tuple[SecretStr, ...] = ()
    api_operate_tokens: tuple[SecretStr, ...] = ()
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(default=LIMITS.body_bytes, ge=1024)
    max_connections: int = Field(default=LIMITS.connections, ge=8)
    max_connections_per_address: int = Field(default=LIMITS.connections_per_address, ge=1)
    header_timeout: int = Field(default=int(LIMITS.head_s * 1000), ge=2000)
    body_timeout: int = Field(default=int(LIMITS.body_s * 1000), ge=2000)
    keepalive_timeout: int = Field(default=int(LIMITS.idle_s * 1000), ge=2000)
    answer_timeout: int = Field(default=int(LIMITS.answer_s * 1000), ge=2000)
    max_in_flight: int = Field(default=64, ge=1, le=1024)
    max_pending: int = Field(default=200_000, ge=1000)
    dedup_mode: Literal["rolling", "fixed"] = "rolling"
    dedup_window: int = 5 * 60_000
    resend_after: int = 4 * 3600_000
    drain_timeout: int = 25_000
    retention: int = 30 * 24 * 3600_000
    history_length: int = Field(default=100_000, ge=0)
    history_path: Path | None = None
    dead_letters: int = Field(default=5_000, ge=10, le=100_000)
    shadow_rules: Path | None = None
    page_short: bool = False
    flapping_transitions: int = Field(default=0, ge=0, le=100)
    flapping_within: int = 10 * 60_000
    #: For one sender, or one sender/name; "" is for all that repeat what still fires.
    auto_resolve_after: Mapping[str, int] = Field(default_factory=lambda: {"": 121 * 3600_000})
    fail_open: bool = True
    second_channel_after: int = 2 * 60_000
    second_channel_webhook_url: SecretStr | None = None
    second_channel_webhook_secret: SecretStr | None = None
    second_channel_smtp_url: SecretStr | None = None
    second_channel_mail_from: str = ""
    second_channel_mail_to: tuple[str, ...] = ()

    @field_validator("pagerduty_routing_key", "pagerduty_fallback_routing_key", "pagerduty_self_routing_key")
    @classmethod
    def _well_formed_key(cls, value: SecretStr | None) -> SecretStr | None:
        # https://developer.pagerduty.com/docs/send-alert-event: anything else is answered with a 400
        if value is not None and not _ROUTING_KEY.fullmatch(value.get_secret_value()):
            raise ValueError("a routing key is 32 letters and digits")
        return value

    @field_validator(
        "webhook_tokens",
        "api_read_tokens",
        "api_operate_tokens",
        "outgoing_hosts",
        "second_channel_mail_to",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    @field_validator(
        "dedup_window",
        "resend_after",
        "drain_timeout",
        "retention",
        "second_channel_after",
        "flapping_within",
        "header_timeout",
        "body_timeout",
        "keepalive_timeout",
        "answer_timeout",
        mode="before",
    )
    @classmethod
    def _duration(cls, value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("write a duration with its unit, such as 90s, 5m or 4h")
        return duration_ms(value)

    @field_validator("auto_resolve_after", mode="before")
    @classmethod
    def _durations_by_sender(cls, value: object) -> object:
        """`121h`, or `121h, datadog=2d, alertmanager/team-a=30m`; 0s is never."""
        if not isinstance(value, str):
            raise ValueError("write a duration such as 121h, and after a comma others such as datadog=2d")
        found: dict[str, int] = {"": 121 * 3600_000}
        for entry in value.split(","):
            sender, equals, span = entry.rpartition("=")
            if equals and not sender.strip():
                raise ValueError(f"{entry.strip()} names no sender")
            found[sender.strip()] = duration_ms(span)
        return found

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`. Raises SettingsInvalid."""
        return _address("listen", self.listen)

    @property
    def limits(self) -> Limits:
        """The bounds on what comes in."""
        return Limits(
            body_bytes=self.max_body_bytes,
            connections=self.max_connections,
            connections_per_address=self.max_connections_per_address,
            head_s=self.header_timeout / 1000,
            body_s=self.body_timeout / 1000,
            idle_s=self.keepalive_timeout / 1000,
            answer_s=self.answer_timeout / 1000,
        )

    @property
    def operations_address(self) -> tuple[str, int] | None:
        """Host and port of `operations_listen`; None where there is none. Raises SettingsInvalid."""
        return _address("operations_listen", self.operations_listen) if self.operations_listen else None

    @property
    def is_exposed(self) -> bool:
        """Whether others than this machine can reach `listen`. Raises SettingsInvalid."""
        return not is_loopback(self.address[0])

    def check_exposure(self, *, by_source: bool = False) -> None:
        """Refuse to listen beyond loopback without tokens: who can post a resolve can silence a page.

        by_source: some sources have credentials of their own; then only those may send.
        """
        if self.is_exposed and not self.webhook_tokens and not by_source:
            raise SettingsInvalid(
                f"{PREFIX}LISTEN is {self.listen}: without tokens only a loopback address is allowed. "
                f"Set {PREFIX}WEBHOOK_TOKENS (or {PREFIX}WEBHOOK_TOKENS_FILE) to one or more secrets, comma-separated, "
                "or name the tokens of each sender under `sources` in alertrouter.yaml"
            )


def _address(name: str, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise SettingsInvalid(f"{_variable(name)} is {value!r}: write host:port, such as 127.0.0.1:9087")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what an empty host means


def duration_ms(text: str) -> int:
    """`90s`, `5m`, `4h`, `1h30m` or `30d` in ms. Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise ValueError("write a duration such as 90s, 5m or 4h")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000


def load_settings(
    environ: Mapping[str, str], options: Mapping[str, Any], file: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from command-line `options` (None = not given), the environment and the file's `settings`.

    Raises SettingsInvalid, naming the variable or key and what to set.
    """
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in (file or {}).items():
        if name in _SECRETS:
            raise SettingsInvalid(
                f"settings.{name} in alertrouter.yaml: secrets do not belong there; set {_variable(name)}_FILE"
            )
        values[name], names[name] = value, f"settings.{name} in alertrouter.yaml"
    for name in Settings.model_fields:
        found = _from_environment(name, environ)
        if found is not None:
            values[name], names[name] = found, _variable(name)
    for name, value in options.items():
        if value is not None:
            values[name], names[name] = value, f"--{name.replace('_', '-')}"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_explain(problem, names) for problem in error.errors())) from error


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that no setting has, each with the name that was probably meant."""
    known = {_variable(name) for name in Settings.model_fields}
    known |= {f"{_variable(name)}_FILE" for name in _SECRETS}
    strays = (
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known and not _FOREIGN_VARIABLE.fullmatch(name[len(PREFIX) :])
    )
    return [
        f"{name} is no setting"
        + (f"; did you mean {close[0]}?" if (close := get_close_matches(name, known, 1)) else "")
        for name in sorted(strays)
    ]


def read_secret(environ: Mapping[str, str], *, env: str | None = None, file: str | None = None) -> str | None:
    """The secret that a rule file refers to by variable or by path; None if it is not there or empty."""
    if env is not None:
        return environ.get(env, "").strip() or None
    if file is not None:
        try:
            return Path(file).read_text().strip() or None
        except (OSError, ValueError):  # the second for bytes that are no text, and for a path that cannot be one
            return None
    return None


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _from_environment(name: str, environ: Mapping[str, str]) -> str | None:
    variable = _variable(name)
    path = environ.get(variable + "_FILE") if name in _SECRETS else None
    if path:
        try:
            return Path(path).read_text().strip() or None
        except OSError as error:
            raise SettingsInvalid(f"{variable}_FILE is {path}: {error.strerror}") from error
    return environ.get(variable) or None


def _explain(problem: Any, names: Mapping[str, str]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    where = names.get(name, name)
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(name, Settings.model_fields, 1)
        return f"{where}: no such setting" + (f"; did you mean {close[0]}?" if close else "")
    shown = "" if name in _SECRETS else f" (it is {problem['input']!r})"
    return f"{where}: {problem['msg']}{shown}"
