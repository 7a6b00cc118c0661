"""The few exceptions a caller is meant to catch. Everything expected is a value, not one of these."""


class AlertrouterError(Exception):
    """Base of all errors raised on purpose; its text is written for the person who can mend it."""


class BadPayload(AlertrouterError):
    """A webhook body that no alert can be made of. `status` is the HTTP answer: 400, 413 or 415."""

    def __init__(self, reason: str, *, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class NotAdmitted(BadPayload):
    """A webhook that proves nothing: 403; or one whose proof cannot be had now: 503, and the sender is to try again."""

    def __init__(self, reason: str, *, status: int = 403) -> None:
        super().__init__(reason, status=status)


class RulesInvalid(AlertrouterError):
    """A rules directory that cannot be loaded. `problems` are lines of the form file:line:col: what; what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SettingsInvalid(AlertrouterError):
    """A setting that is missing or wrong; the text names it and says what to set."""


class StoreUnavailable(AlertrouterError):
    """Redis did not confirm: nothing may be answered with 2xx."""


class ForeignData(StoreUnavailable):
    """The key of one alert holds something that is not ours: Redis is well, this alert cannot be stored."""

    def __init__(self, alert_id: str) -> None:
        super().__init__(f"the key of alert {alert_id!r} holds foreign data; delete it, or set ALERTROUTER_INSTANCE")


class NotDone(AlertrouterError):
    """What somebody asked the API for cannot be done. `status` is the HTTP answer; `more` are members beside `error`."""

    def __init__(self, reason: str, *, status: int = 400, **more: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.more = more
