"""Signatures: those of each vendor are taken, by every secret in force; nothing else is. Digests made with openssl."""

from __future__ import annotations

from typing import get_args

import pytest
from multidict import CIMultiDict

from alertrouter.rules.schema import SignatureShape
from alertrouter.web.signatures import SCHEMES, Secret, Signing, is_signed, signer

BODY = b'{"alerts":[]}'
NOW_S = 1_799_550_000
ONE, TWO = Secret("one", b"s3cret one"), Secret("two", b"s3cret two")
# printf '{"alerts":[]}' | openssl dgst -sha256 -hmac "s3cret one"
BY_ONE = "eb30d135b7b5b5c376a8ebe60ccb8fc961dbd57612bba4b4a13e66595b96bf7c"
BY_TWO = "40c7d196f49da8390f07f79063a831b7ead9bcac6088ffb7db547eb7932f83a7"
# printf '1799550000:{"alerts":[]}' | openssl dgst -sha256 -hmac "s3cret one"
AT_NOW = "801143d364f5ab5ba980974ad57157430cbe0722aeb82195886508c7f7e3feee"

GRAFANA, SENTRY, PAGERDUTY = "X-Grafana-Alerting-Signature", "Sentry-Hook-Signature", "X-PagerDuty-Signature"
OTHER = "0" * 64

CASES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "grafana": ("grafana", {GRAFANA: BY_ONE}, "one"),
    "grafana, in lower case": ("grafana", {GRAFANA.lower(): BY_ONE}, "one"),
    "the second secret": ("grafana", {GRAFANA: BY_TWO}, "two"),
    "sentry": ("sentry", {SENTRY: BY_TWO}, "two"),
    "pagerduty": ("pagerduty", {PAGERDUTY: f"v1={BY_ONE}"}, "one"),
    "pagerduty, two of which one is known": ("pagerduty", {PAGERDUTY: f"v1={OTHER},v1={BY_TWO}"}, "two"),
    "pagerduty, blanks after commas": ("pagerduty", {PAGERDUTY: f"v1={OTHER}, v1={BY_ONE}"}, "one"),
    "pagerduty, another version": ("pagerduty", {PAGERDUTY: f"v2={BY_ONE}"}, None),
    "pagerduty, no version": ("pagerduty", {PAGERDUTY: BY_ONE}, None),
    "pagerduty, the ninth": ("pagerduty", {PAGERDUTY: f"v1={OTHER}," * 8 + f"v1={BY_ONE}"}, None),
    "no signature": ("grafana", {}, None),
    "an empty one": ("grafana", {GRAFANA: ""}, None),
    "a wrong one": ("grafana", {GRAFANA: OTHER}, None),
    "all but its end": ("grafana", {GRAFANA: BY_ONE[:62] + "00"}, None),
    "half of it": ("grafana", {GRAFANA: BY_ONE[:32]}, None),
    "more than it": ("grafana", {GRAFANA: BY_ONE + "00"}, None),
    "in upper case": ("grafana", {GRAFANA: BY_ONE.upper()}, None),
    "several where one belongs": ("grafana", {GRAFANA: f"{OTHER},{BY_ONE}"}, None),
    "in another vendor's header": ("grafana", {SENTRY: BY_ONE}, None),
    "no hex": ("sentry", {SENTRY: "é" * 64}, None),
}


@pytest.mark.parametrize(("scheme", "headers", "by"), CASES.values(), ids=CASES.keys())
def test_who_signed(scheme: str, headers: dict[str, str], by: str | None) -> None:
    assert signer(Signing(scheme, (ONE, TWO)), CIMultiDict(headers), BODY, NOW_S * 1000) == by


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_body_is_not_signed(scheme: str) -> None:
    signed = CIMultiDict({SCHEMES[scheme].header: SCHEMES[scheme].version + BY_ONE})
    assert signer(Signing(scheme, (ONE,)), signed, BODY, 0) == "one"
    assert signer(Signing(scheme, (ONE,)), signed, BODY + b" ", 0) is None
    assert signer(Signing(scheme, (TWO,)), signed, BODY, 0) is None
    assert signer(Signing(scheme, ()), signed, BODY, 0) is None


@pytest.mark.parametrize(("off_s", "taken"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_a_signed_time_is_at_most_five_minutes_off(off_s: int, taken: bool) -> None:
    signing = Signing("grafana", (ONE,), header="X-Sig", timestamp_header="X-Time")
    headers = CIMultiDict({"X-Sig": AT_NOW, "X-Time": str(NOW_S)})
    assert signer(signing, headers, BODY, (NOW_S + off_s) * 1000) == ("one" if taken else None)


@pytest.mark.parametrize(
    "seconds", [None, "", "x", "-1", str(NOW_S + 1), f"{NOW_S}.0", f" {NOW_S}", "9" * 400, "\u0661"]
)
def test_a_time_that_was_not_signed_is_none(seconds: str | None) -> None:
    signing = Signing("grafana", (ONE,), header="X-Sig", timestamp_header="X-Time")
    headers = CIMultiDict({"X-Sig": AT_NOW} | ({} if seconds is None else {"X-Time": seconds}))
    assert signer(signing, headers, BODY, NOW_S * 1000) is None


def test_a_signature_without_its_time_is_not_taken_where_the_time_is_asked_for() -> None:
    signing = Signing("grafana", (ONE,), timestamp_header="X-Time")
    assert signer(signing, CIMultiDict({GRAFANA: BY_ONE, "X-Time": str(NOW_S)}), BODY, NOW_S * 1000) is None


def test_what_carries_no_signature_is_known_without_the_body() -> None:
    assert is_signed(Signing("pagerduty", ()), CIMultiDict({PAGERDUTY: f"v1={OTHER}"}))
    assert not is_signed(Signing("pagerduty", ()), CIMultiDict({PAGERDUTY: "v1=00"}))
    assert not is_signed(Signing("grafana", ()), CIMultiDict({PAGERDUTY: f"v1={OTHER}"}))


def test_the_rules_may_name_every_scheme_and_no_other() -> None:
    assert set(get_args(SignatureShape.model_fields["scheme"].annotation)) == SCHEMES.keys()


def test_a_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(Signing("grafana", (ONE, TWO)))
