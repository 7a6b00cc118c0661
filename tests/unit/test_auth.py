"""Tokens as they travel: each way in, whatever the token, and nothing else."""

from __future__ import annotations

import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from alertrouter.web.auth import digest_of, numbered, token_shown
from alertrouter.web.signatures import Secret

#: What a header can carry: no control characters, no blanks at its ends.
tokens = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1).filter(
    lambda text: text == text.strip()
)
#: What may arrive in a header: bytes that are no UTF-8 come as lone surrogates.
arriving = st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def ways(token: str) -> list[dict[str, str]]:
    """Every way in which a request can carry a token."""
    return [
        {"X-Alertrouter-Token": token},
        {"X-Team": token},
        {"Authorization": f"Bearer {token}"},
        {"authorization": f"bearer  {token}"},
        {"Authorization": "Basic " + b64encode(f"any one:{token}".encode()).decode()},
    ]


@given(tokens, tokens)
def test_a_token_is_known_in_every_way_and_no_other_is(token: str, other: str) -> None:
    for headers in ways(token):
        shown = token_shown(CIMultiDict(headers), numbered(["some", token + "x", token]), "X-Team")
        assert shown == "global:3"
        if other != token:
            assert token_shown(CIMultiDict(headers), numbered([other]), "X-Team") is None
        assert token_shown(CIMultiDict(headers), ()) is None


@given(arriving, st.sampled_from(["Authorization", "X-Alertrouter-Token"]), st.sampled_from(["", "Basic ", "Bearer "]))
def test_whatever_arrives_is_answered_and_admits_nobody(value: str, header: str, scheme: str) -> None:
    assert token_shown(CIMultiDict({header: scheme + value}), numbered(["a token that nobody guesses"])) is None


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic"}, {"Authorization": ""}]
)
def test_no_token_is_not_an_empty_one(headers: dict[str, str]) -> None:
    assert token_shown(CIMultiDict(headers), numbered(["x"])) is None


@pytest.mark.parametrize("shown", ["first", "last", "none"])
def test_every_token_is_compared_whichever_is_shown(shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def noted(offered: bytes, known: bytes) -> bool:
        compared.append(known)
        return compare(offered, known)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    token_shown(CIMultiDict({"X-Alertrouter-Token": shown}), numbered(["first", "middle", "last"]))
    assert compared == [digest_of(token) for token in ("first", "middle", "last")]


def test_a_token_is_not_shown() -> None:
    assert "s3cret" not in repr(numbered(["s3cret"])) + repr(Secret("name", b"s3cret"))
