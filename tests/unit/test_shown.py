"""Text that anybody may have written moves no cursor, forges no line, and is no link, command or header."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alertrouter.destinations.second_channel import Mail, Message, letter_of
from alertrouter.rules.finding import Finding, Gravity
from alertrouter.rules.finding_formats import as_github, as_json, as_sarif
from alertrouter.rules.model import KeyReference
from alertrouter.shown import (
    HIDDEN,
    escaped,
    escaped_json,
    escaped_lines,
    in_code,
    in_markdown,
    no_command,
    without_credentials,
    without_secrets,
)
from alertrouter.telemetry import REGISTRY
from tests.alerts import NIGHT
from tests.growth import MOST_GROWTH, growth

#: Everything Python can hold, and what has fooled terminals, code hosts and mail servers.
texts = st.text(st.characters(exclude_categories=()), max_size=60) | st.sampled_from(
    [
        "\x1b]0;title\x07\x1b[2J\x1b[31m",
        "\x9b2J\x90q\x9c",
        "\u202egnp.exe\u2066",
        "line\r\n::error file=rules/router.yaml::forged",
        "##[error]forged",
        "[red]markup[/red]",
        "\ud800\udfff\x00",
        "x\r\nBcc: everyone@example.org\r\n\r\nbody",
        "![pixel](https://example.org/x.png) [log in](https://example.org) <img src=x onerror=alert(1)>",
        "@org/everyone closes #1 https://example.org www.example.org",
        "_www.example.org *www.example.org* (WWW.example.org) GH-1 _gh-2_ (GH-3) owner/repository#4 awww. SIGH-5",
        "`code` ``` <!-- | \\| &lt; &#64;everyone",
        '=HYPERLINK("https://example.org")',
        "{{7*7}} ${7*7} %(name)s {name} %n",
        "a" * 10_000,
    ]
)
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@given(texts)
def test_an_escaped_line_is_one_printable_line(text: str) -> None:
    line = escaped(text)
    assert line.isprintable()
    line.encode()
    assert escaped(text, "ascii").isascii()
    assert escaped(line) == line
    assert escaped_lines(text).split("\n") == [escaped(each) for each in text.split("\n")]


@given(texts | st.dictionaries(texts, texts), st.booleans())
def test_escaped_json_means_the_same_and_hides_nothing(value: object, pretty: bool) -> None:
    text = escaped_json(json.dumps(value, ensure_ascii=False, indent=2 if pretty else None))
    assert json.loads(text) == json.loads(json.dumps(value))
    assert not UNSEEN.search(text.replace("\n", ""))


@given(texts)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    line = in_markdown(text)
    assert line.isprintable() or line == ""
    bare = re.sub(r"\\.", " ", line).replace("&#8203;", "\u200b")
    assert not re.search(r"[\\`*\[\]!|~$<]", bare), "all that has a meaning inside a line stands behind a backslash"
    linked = r"@\w|#\d|://|(?<![^\W_])(www\.|GH-\d)"
    assert not re.search(linked, bare, re.IGNORECASE), "nobody is mentioned, nothing is referred to"
    assert not re.search(r"&(?!amp;|lt;)", bare), "no entity but ours"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see _www.evil.example/x", r"see \_www&#8203;.evil.example/x"),
        ("__www.evil.example", r"\_\_www&#8203;.evil.example"),
        ("(Www.evil.example)", "(Www&#8203;.evil.example)"),
        ("closes GH-12", "closes GH-&#8203;12"),
        ("_gh-12_", r"\_gh-&#8203;12\_"),
        ("owner/repository#12 @team", "owner/repository#&#8203;12 @&#8203;team"),
        ("awww. SIGH-12 GH-x", "awww. SIGH-12 GH-x"),
    ],
)
def test_what_github_would_link_is_broken_by_a_blank_of_no_width(text: str, shown: str) -> None:
    assert in_markdown(text) == shown


@given(texts.filter(str.strip))
def test_code_in_markdown_ends_where_it_should(text: str) -> None:
    line = in_code(text)
    fence = "`" * (len(line) - len(line.lstrip("`")))
    assert line.startswith(fence) and line.endswith(fence) and line.isprintable()
    assert fence not in line[len(fence) : -len(fence)]


@given(texts, texts)
@example("rules/a%0A::error::b,c:d.yaml", "50 %\r\n::stop-commands::x")
def test_an_annotation_is_one_workflow_command(file: str, message: str) -> None:
    finding = Finding(file, 1, 2, "syntax", Gravity.ERROR, message)
    (line,) = as_github([finding]).split("\n")
    assert line.isprintable()
    command, properties, said = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line).groups()  # type: ignore[union-attr]
    assert command == "error"
    assert len(properties.split(",")) == 4, "a name adds no property"
    assert "%" not in re.sub(r"%(25|0A|0D|3A|2C)", "", properties + said)
    for text in (as_json([finding], None), as_sarif([finding], {}, "1")):
        json.loads(escaped_json(text))
        assert not UNSEEN.search(escaped_json(text).replace("\n", ""))


@given(texts, texts)
def test_a_mail_has_our_headers_only(subject: str, text: str) -> None:
    mail = Mail("localhost", 25, "", "alertrouter@example.org", ("oncall@example.org",))
    letter = message_from_bytes(letter_of(mail, Message(subject, text, {}), NIGHT).as_bytes(), policy=default)
    assert set(letter) == {
        *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"),
        *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
    }
    assert letter["To"] == "oncall@example.org"
    assert str(letter["Subject"]).isprintable()
    assert not UNSEEN.search(letter.get_content().replace("\n", ""))


@given(texts)
def test_hiding_credentials_is_harmless_and_done_once(text: str) -> None:
    hidden = without_credentials(text)
    assert without_credentials(hidden) == hidden
    if "://" not in text and not re.search("bearer|basic", text, re.IGNORECASE):
        assert hidden == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("redis://:sesame@db:6379/0", "redis://***@db:6379/0"),
        ("see https://me:s@same@host/a?token=b#c.", "see https://***@host/a?***"),
        ("9scheme_x://u:p@h ://u:p@h", "9scheme_x://***@h ://***@h"),
        ("https://host/a 'http://u@h'", "https://host/a 'http://***@h'"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ],
)
def test_credentials_are_hidden_and_the_place_stays(text: str, hidden: str) -> None:
    assert without_credentials(text) == hidden


@pytest.mark.parametrize(
    "unit", ["a-", "a", "://", "://a@", "://a?", "bearer ", "alertrouter_", "_", "@", "`", " ", "&"]
)
@pytest.mark.parametrize(
    "clean",
    [without_credentials, without_secrets, escaped, escaped_json, in_markdown, in_code],
    ids=lambda it: it.__name__,
)
def test_no_text_costs_more_than_its_size(clean: Callable[[str], str], unit: str) -> None:
    assert growth(lambda times: clean(f"x://x bearer {unit * times}"), 4_000) < MOST_GROWTH


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=32, max_size=32), texts)
def test_what_has_the_form_of_a_routing_key_is_hidden(key: str, around: str) -> None:
    assert key not in without_secrets(f"{around} '{key}' {around}")


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=43, max_size=43), texts)
def test_what_has_the_form_of_our_tokens_is_hidden(random: str, around: str) -> None:
    token = f"alertrouter_{random[:-1]}A"
    assert token not in without_secrets(f"{around} '{token}' {around}")


def test_names_of_metrics_are_no_tokens() -> None:
    names = [name for family in REGISTRY.collect() for name in {family.name, *(each.name for each in family.samples)}]
    longest = "alertrouter_" + "x_total" * 7
    for name in (*names, longest, longest[:55]):
        assert without_secrets(name) == name


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (KeyReference(env="PD_KEY_PAYMENT"), "PD_KEY_PAYMENT"),
        (KeyReference(env="pd_key_2"), "pd_key_2"),
        (KeyReference(file="/run/secrets/team-a"), "/run/secrets/team-a"),
        (KeyReference(env="a1" * 16), HIDDEN),
        (KeyReference(env="Q4HtbxzkKy8_6HVmw4kYysToTZfUgCGm"), HIDDEN),
        (KeyReference(env="q4htb-xzk"), HIDDEN),
        (KeyReference(file="hunter2"), HIDDEN),
        (KeyReference(file="/run/" + "a1" * 16), "/run/***"),
    ],
)
def test_a_place_is_shown_and_what_may_be_the_secret_itself_is_not(place: KeyReference, shown: str) -> None:
    assert place.shown == shown


@given(st.sampled_from(["::error::", "##[error]", " \t::stop-commands::x", "\u3000##[group]"]), texts)
def test_no_line_is_a_workflow_command(command: str, text: str) -> None:
    assert no_command(command + text).startswith("'")
    assert not re.match(r"\s*(::|##\[)", no_command(text))


@pytest.mark.parametrize("text", ["payments-critical_eu", "prod/eu-1", "CPU at 97.5 % (since 3:15)", "naïve ≥ 5"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert escaped(text) == in_markdown(text) == without_credentials(text) == text
