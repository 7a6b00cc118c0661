"""One team's faulty file: what it had stays in force, and nobody else notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from alertrouter.enrich import enrich
from alertrouter.errors import RulesInvalid
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules, read_rules
from alertrouter.rules.model import Decision, Ruleset, Verdict
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill

ROUTER = """
sets:
  start:
    - {rule: to-shop, when: event.custom_details.service == 'shop', then: {route_to: shop}}
    - {rule: to-cart, when: event.custom_details.service == 'cart', then: {route_to: cart}}
catch_all: {route_to: unrouted}
"""
SHOP = "team: team-shop\nsets: {start: [{rule: shop-note, then: {annotate: as before}}]}\n"
CART = "routing_key: {env: PD_KEY_CART}\n"
#: Wrong in each of the ways that are found at different stages of reading.
FAULTY = {
    "no YAML": "sets: [\n",
    "no UTF-8": b"team: \xff\n",
    "another shape": "tier: high\n",
    "a tag over what has not its form": "disabled: !!bool maybe\n",
    "a condition": "sets: {start: [{rule: r, when: event.a != 'b', then: {}}]}\n",
    "a name in use": "sets: {start: [{rule: to-cart, then: {}}]}\n",
    "another service": "service: cart\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    fill(tmp_path, {"router.yaml": ROUTER, "services/shop.yaml": SHOP, "services/cart.yaml": CART})
    return tmp_path


def spoil(directory: Path, name: str = "services/shop.yaml", text: str | bytes = "sets: [\n") -> None:
    (directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def decide(ruleset: Ruleset, service: str) -> Decision:
    return evaluate(make_alert(service=service), ruleset, NIGHT, trace=True)


@pytest.mark.parametrize("text", FAULTY.values(), ids=FAULTY)
def test_what_was_good_stays_in_force(directory: Path, text: str | bytes) -> None:
    good = load_rules(directory)
    spoil(directory, text=text)
    reloaded = load_rules(directory, good)
    assert reloaded.services == good.services
    assert decide(reloaded, "shop") == decide(good, "shop")
    assert decide(reloaded, "shop").annotations == ("as before",)
    again = load_rules(directory, reloaded)
    assert decide(again, "shop") == decide(good, "shop")


@pytest.mark.parametrize("text", FAULTY.values(), ids=FAULTY)
def test_without_a_good_version_its_alerts_go_to_the_catch_all_and_say_so(directory: Path, text: str | bytes) -> None:
    spoil(directory, text=text)
    ruleset = load_rules(directory)
    assert list(ruleset.services) == ["cart", "shop"]
    decision = decide(ruleset, "shop")
    assert (decision.verdict, decision.service, decision.quarantined) == (Verdict.DELIVER, "", "shop")
    assert decision.destinations == ("pagerduty:default",)
    assert decision.reason == "the file of shop is faulty and quarantined, and no good version of it is known"
    assert decision.trace[-1].orchestration == "unrouted"
    details = enrich(make_alert(), decision, ruleset).event.custom_details
    assert details["alertrouter"]["quarantined"] == "shop"


def test_the_others_do_not_notice(directory: Path) -> None:
    before = decide(load_rules(directory), "cart")
    spoil(directory)
    assert decide(load_rules(directory), "cart") == before
    assert before.destinations == ("pagerduty:cart",)
    assert before.quarantined == ""


def test_the_others_still_get_their_changes(directory: Path) -> None:
    good = load_rules(directory)
    spoil(directory)
    fill(directory, {"services/cart.yaml": "team: team-cart\n"})
    reloaded = load_rules(directory, good)
    assert reloaded.services["cart"].team == "team-cart"
    assert reloaded.version != good.version


def test_the_catch_all_may_be_a_service_and_that_one_faulty_too(directory: Path) -> None:
    fill(directory, {"router.yaml": ROUTER.replace("unrouted", "cart")})
    spoil(directory)
    decision = decide(load_rules(directory), "shop")
    assert (decision.service, decision.quarantined, decision.destinations) == ("cart", "shop", ("pagerduty:cart",))
    spoil(directory, "services/cart.yaml")
    decision = decide(load_rules(directory), "shop")
    assert (decision.service, decision.quarantined) == ("", "shop")


def test_each_is_named_with_its_problems(directory: Path) -> None:
    spoil(directory, text="tier: high\nteam: 5\n")
    ruleset = load_rules(directory)
    assert {name: len(problems) for name, problems in ruleset.quarantined.items()} == {"shop": 2}
    assert ruleset.quarantined["shop"] == tuple(str(problem) for problem in read_rules(directory).problems)
    assert ruleset.quarantined["shop"][0].startswith(f"{directory}/services/shop.yaml:1:7: ")


def test_once_mended_it_is_in_force_again(directory: Path) -> None:
    good = load_rules(directory)
    spoil(directory)
    faulty = load_rules(directory, good)
    fill(directory, {"services/shop.yaml": SHOP.replace("as before", "mended")})
    mended = load_rules(directory, faulty)
    assert mended.quarantined == {}
    assert decide(mended, "shop").annotations == ("mended",)


def test_the_version_is_that_of_what_is_in_force(directory: Path) -> None:
    good = load_rules(directory)
    spoil(directory)
    assert load_rules(directory, good).version == good.version
    cold = load_rules(directory)
    assert cold.version != good.version
    spoil(directory, text="team: [\n")
    assert load_rules(directory).version == cold.version


@pytest.mark.parametrize("name", ["global.yaml", "router.yaml", "unrouted.yaml", "alertrouter.yaml"])
def test_a_fault_in_what_all_share_refuses_everything(directory: Path, name: str) -> None:
    good = load_rules(directory)
    spoil(directory)
    spoil(directory, name)
    with pytest.raises(RulesInvalid) as raised:
        load_rules(directory, good)
    assert raised.value.problems == [str(problem) for problem in read_rules(directory).problems]
    assert len(raised.value.problems) == 2


def test_a_service_that_takes_the_name_of_the_catch_all_changes_nothing(directory: Path) -> None:
    spoil(directory, "services/unrouted.yaml", "team: team-x\n")
    decision = decide(load_rules(directory), "other")
    assert (decision.service, decision.quarantined, decision.reason) == ("", "", "")


def test_check_still_finds_it(directory: Path) -> None:
    spoil(directory)
    reading = read_rules(directory)
    assert reading.ruleset is None
    assert len(reading.problems) == 1


def test_a_suppression_may_not_last_longer_than_allowed(directory: Path) -> None:
    then = "{suppress: true, reason: noise, expires: 2027-03-31}"
    fill(
        directory,
        {
            "alertrouter.yaml": "limits: {longest_suppression: 90d}\n",
            "services/shop.yaml": f"sets: {{start: [{{rule: r, owner: me, then: {then}}}]}}\n",
        },
    )
    in_time = 1_806_537_600_000 - 90 * 86_400_000  # 2027-04-01 minus 90 days
    assert read_rules(directory, now=in_time).problems == ()
    assert read_rules(directory).problems == ()
    (problem,) = read_rules(directory, now=in_time - 1).problems
    assert str(problem) == (
        f"{directory}/services/shop.yaml:1:84: it lasts longer than `longest_suppression` in alertrouter.yaml allows; "
        "choose an earlier end"
    )
    assert list(load_rules(directory, now=in_time - 1).quarantined) == ["shop"]
