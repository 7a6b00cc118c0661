"""What the responder sees: whose the alert is, how to deal with it, and the sender's own words untouched."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.alert import Alert, Link
from alertrouter.enrich import Enriched, enrich
from alertrouter.rules.model import Decision, Ruleset, Service, Verdict
from tests.alerts import make_alert
from tests.unit.test_condition_properties import JSON

RUNBOOK = "https://git.example.org/runbooks/shop.md"
SHOP = Service(
    "shop", "team-shop", 2, "Weekly rotation", RUNBOOK, (Link("https://grafana.example.org/d/shop", "Dashboard"),)
)
RULESET = Ruleset({"shop": SHOP, "bare": Service("bare")}, {})


def enriched(alert: Alert, **decided: Any) -> Enriched:
    decision = Decision(Verdict.DELIVER, alert.event, "shop", "P2", "", "", ("a", "b"), (), ("pagerduty:default",), ())
    return enrich(alert, dataclasses.replace(decision, **decided), RULESET)


def test_everything_of_ours_is_in_one_place_and_the_owner_on_top_as_well() -> None:
    alert = replace(make_alert(host="web-1"), notes=("startsAt was no time",))
    details = enriched(alert, annotations=("restart it",), details={"impact": "check-out"}).event.custom_details
    ours = {
        "service": "shop",
        "team": "team-shop",
        "tier": 2,
        "on_call": "Weekly rotation",
        "runbook": RUNBOOK,
        "priority": "P2",
        "notes": ["restart it"],
        "rules": ["a", "b"],
        "details": {"impact": "check-out"},
        "payload_notes": ["startsAt was no time"],
    }
    assert details == {
        "host": "web-1",
        "service": "shop",
        "team": "team-shop",
        "tier": 2,
        "runbook": RUNBOOK,
        "impact": "check-out",
        "alertrouter": ours,
    }


def test_what_the_sender_wrote_stays() -> None:
    sent: dict[str, Any] = {
        "service": "shop-frontend",
        "team": "nobody",
        "runbook": "ask Bob",
        "tier": "gold",
        "impact": "none",
    }
    details = enriched(make_alert(**sent), details={"impact": "check-out"}).event.custom_details
    assert {name: details[name] for name in sent} == sent
    assert details["alertrouter"]["team"] == "team-shop"
    assert details["alertrouter"]["details"] == {"impact": "check-out"}


def test_a_member_of_our_name_moves_and_is_not_taken_for_ours() -> None:
    details = enriched(make_alert(alertrouter="forged")).event.custom_details
    assert details["alertrouter"]["sender"] == "forged"
    assert details["alertrouter"]["team"] == "team-shop"


def test_a_rule_may_give_another_runbook_than_the_service() -> None:
    details = enriched(make_alert(), details={"runbook": "https://wiki.example.org/oom"}).event.custom_details
    assert details["runbook"] == "https://wiki.example.org/oom"
    assert details["alertrouter"]["runbook"] == RUNBOOK


def test_an_unrouted_alert_is_marked() -> None:
    details = enriched(make_alert(), service="", priority="", matched=()).event.custom_details
    assert details == {"service": "payment", "alertrouter": {"unrouted": True}}


def test_what_a_service_does_not_say_is_left_out() -> None:
    details = enriched(make_alert(host="web-1"), service="bare", priority="", matched=()).event.custom_details
    assert details == {"host": "web-1", "service": "bare", "alertrouter": {"service": "bare"}}


def test_every_link_comes_once_the_runbook_first() -> None:
    alert = replace(make_alert(), links=(Link("https://prom.example.org", "Source"), Link(RUNBOOK, "Their runbook")))
    from_rule = (Link("https://wiki.example.org/oom", "OOM"), Link("https://prom.example.org", "Again"))
    assert enriched(alert, links=from_rule).links == (
        Link(RUNBOOK, "Runbook"),
        Link("https://wiki.example.org/oom", "OOM"),
        Link("https://prom.example.org", "Again"),
        Link("https://grafana.example.org/d/shop", "Dashboard"),
    )


def test_a_runbook_that_is_only_a_path_is_no_link() -> None:
    ruleset = Ruleset({"shop": dataclasses.replace(SHOP, runbook="runbooks/shop.md", links=())}, {})
    alert = make_alert()
    decision = Decision(Verdict.DELIVER, alert.event, "shop", "", "", "", (), (), (), ())
    result = enrich(alert, decision, ruleset)
    assert result.links == ()
    assert result.event.custom_details["runbook"] == "runbooks/shop.md"


def test_the_sender_stays_the_client_and_the_event_is_as_decided() -> None:
    alert = replace(make_alert(), client="Alertmanager", client_url="https://am.example.org")
    changed = replace(alert.event, summary="changed by a rule")
    result = enriched(alert, event=changed)
    assert (result.client, result.client_url) == ("Alertmanager", "https://am.example.org")
    assert result.event.summary == "changed by a rule"
    assert alert.event.custom_details == {"service": "payment"}


@given(st.dictionaries(st.text() | st.sampled_from(["alertrouter", "team", "service"]), JSON))
def test_no_member_of_the_sender_is_lost(sent: dict[str, Any]) -> None:
    alert = make_alert()
    alert = replace(alert, event=replace(alert.event, custom_details=sent))
    details = enriched(alert).event.custom_details
    for name, value in sent.items():
        kept = details["alertrouter"]["sender"] if name == "alertrouter" else details[name]
        assert kept is value
