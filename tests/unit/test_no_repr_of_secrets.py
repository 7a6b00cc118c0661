"""No value of ours shows a secret when it is shown itself: in an assertion, a debugger, a log line that was not thought of."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import alertrouter
from alertrouter.delivery.journal import Begun
from alertrouter.delivery.judging import ActiveRules
from alertrouter.destinations.second_channel import mail, signed_webhook
from alertrouter.record import Told
from alertrouter.rules.load import load_rules
from alertrouter.settings import _SECRETS, load_settings
from alertrouter.store.store import Queued
from alertrouter.web.signatures import Secret
from tests.alerts import NIGHT, make_alert

RULES = Path(__file__).parents[2] / "rules"
SECRET = "5ecre7" * 6
#: Fields by whose name something secret may be in them, and those where it never is.
_SUSPECT = {
    "headers",
    "key",
    "keys",
    "own_limits",
    "password",
    "routing_key",
    "routing_keys",
    "secret",
    "token",
    "tokens",
}
_HARMLESS = {
    "letter.Letter.headers",  # those that a parser reads
    "limits.Limits.key",  # a length
    "rules.cache.CacheVariable.key",
    "rules.cache.RecentValue.key",
    "rules.cache.TriggerCount.key",
    "rules.document._Opened.key",
    "rules.model.Automation.headers",  # of rules, which hold no secrets: `check` warns
    "rules.model.CredentialReferences.tokens",  # where they are found
    "rules.model.Integration.routing_key",  # where the key is found
    "rules.model.Rule.key",
    "rules.model.Service.routing_key",  # where the key is found
    "rules.moment.CacheQuery.key",
    "rules.moment.CacheWrite.key",
    "rules.moment.CountQuery.key",
    "rules.syntax.Path.keys",
    "rules.templates.Reference.keys",
    "sources.custom.Place.keys",
    "simulation.conditioned.Conditioned.key",
    "simulation.coverage._Watched.key",
    "store.store.Threshold.key",
    "web.auth.Credentials.tokens",  # secrets, whose values are not shown
}


def classes() -> Iterator[type[Any]]:
    """Every dataclass and struct of the package but the sandbox, which is there to show what it received."""
    for module in pkgutil.walk_packages(alertrouter.__path__, "alertrouter."):
        if ".sandbox" in module.name or module.name.endswith("__main__"):
            continue
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if value.__module__ == module.name and (
                dataclasses.is_dataclass(value) or issubclass(value, msgspec.Struct)
            ):
                yield value


def shown(kind: type[Any]) -> Iterator[str]:
    """The fields of a class that its repr shows."""
    if dataclasses.is_dataclass(kind):
        yield from (each.name for each in dataclasses.fields(kind) if each.repr)
    elif "__repr__" not in vars(kind):
        yield from kind.__struct_fields__


def test_no_field_by_the_name_of_a_secret_is_shown() -> None:
    found = {f"{kind.__module__}.{kind.__qualname__}.{name}" for kind in classes() for name in shown(kind)}
    assert len(found) > 300
    suspect = {each.removeprefix("alertrouter.") for each in found if each.rpartition(".")[2] in _SUSPECT}
    assert suspect <= _HARMLESS, "give the field repr=False, or the struct a __repr__ without it"


@pytest.mark.parametrize(
    "value",
    [
        Told("pagerduty:default", key=SECRET),
        Begun(1, NIGHT, make_alert(), "pagerduty:default", SECRET),
        Queued("pagerduty:default", 1, SECRET),
        signed_webhook(f"https://hooks.example.org/{SECRET}", SECRET),
        mail(f"smtps://me:{SECRET}@mail.example.org", "a@example.org", ["b@example.org"]),
        ActiveRules(load_rules(RULES), {"pagerduty:default": SECRET}, {}, {SECRET: 110}),
        Secret("old", SECRET.encode()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_secret_does_not_show_it(value: object) -> None:
    assert SECRET not in repr(value) and SECRET not in str(value)


def test_settings_show_none_of_their_secrets() -> None:
    key = "5ecre7ke" * 4
    said = {name: key if name.endswith("routing_key") else f"x://{SECRET}" for name in _SECRETS}
    settings = load_settings({f"ALERTROUTER_{name.upper()}": text for name, text in said.items()}, {})
    for shown in (repr(settings), str(settings), repr(vars(settings)), settings.model_dump_json()):
        assert SECRET not in shown and key not in shown
