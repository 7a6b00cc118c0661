"""Senders that alertrouter.yaml describes: what their fields make of bodies, and what is said of wrong fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from alertrouter.alert import Alert, Link, Severity, Status
from alertrouter.errors import BadPayload, RulesInvalid
from alertrouter.limits import LIMITS
from alertrouter.rules.load import load_rules
from alertrouter.sources import ParsedPayload, Skipped, find_parser
from alertrouter.sources.bounds import CUT_MARK
from tests.custom_senders import ACME, PLAIN, custom, write_sender

SOURCE = "custom/acme"
PARSE_ACME = custom(SOURCE, ACME)[SOURCE]
PARSE_PLAIN = custom(SOURCE, PLAIN)[SOURCE]
HOST = {"id": 7, "name": "db-2"}
PROBLEM: dict[str, Any] = {"id": "p1", "state": 1, "title": "Disk full"}


def parse(*problems: Any, **members: Any) -> ParsedPayload:
    body = {"host": HOST, "event": {"problems": list(problems), "room": "B"}, "secret": 1} | members
    return PARSE_ACME(json.dumps(body).encode(), {}, SOURCE)


def read(**changes: Any) -> Alert:
    [alert] = parse(PROBLEM | changes).alerts
    return alert


def read_with(fields: str, **body: Any) -> Alert:
    """One alert of a sender that has these fields beside PLAIN's."""
    described = f"identity: id\nstatus: {{path: state, firing: [down], resolved: [up]}}\n{fields}"
    [alert] = custom(SOURCE, described)[SOURCE](
        json.dumps({"id": 1, "state": "down"} | body).encode(), {}, SOURCE
    ).alerts
    return alert


def test_every_field_is_read() -> None:
    problem = {
        "id": "p1",
        "state": "ok",
        "level": 5,
        "title": " Disk&nbsp;&gt; 90&#x25;\nfull ",
        "part": "disk",
        "team": "dba",
        "kind": "storage",
        "occurrence": 990127,
        "since": 1801800000,
        "until": "2027-02-05T05:10:00+01:00",
        "reason": {"used": 0.93},
        "tags": [{"tag": "env", "value": "prod"}, {"name": "tier", "value": 1}],
        "url": "https://acme.example.org/p1",
    }
    [alert] = parse(problem, labels={"site": "fra"}).alerts
    assert (alert.source, alert.fingerprint, alert.status) == (SOURCE, "p1:7", Status.RESOLVED)
    event = alert.event
    assert (event.summary, event.source, event.severity) == ("Disk > 90% full", "db-2", Severity.CRITICAL)
    assert (event.component, event.group, event.class_) == ("disk", "dba", "storage")
    assert event.timestamp == "2027-02-05T04:00:00Z"
    assert event.custom_details == {"env": "prod", "tier": 1, "site": "fra", "why": {"used": 0.93}}
    assert (alert.episode, alert.episode_at, alert.ended_at) == ("990127", 1_801_800_000_000, 1_801_800_600_000)
    assert alert.links == (Link("https://acme.example.org/p1", "Problem"),)
    assert (alert.client, alert.client_url) == ("acme", "https://acme.example.org/p1")
    assert alert.raw["event"] == {"problems": [problem], "room": "B"}
    assert alert.raw["host"] == HOST
    assert alert.notes == ()


def test_what_is_left_out_has_a_default() -> None:
    body = {"id": 4, "state": "down", "who": {"a": [1]}}
    [alert] = PARSE_PLAIN(json.dumps(body).encode(), {}, SOURCE).alerts
    assert (alert.event.summary, alert.event.source, alert.event.severity) == ("acme alert 4", "acme", Severity.ERROR)
    assert alert.event.custom_details == alert.raw == body
    assert (alert.episode, alert.episode_at, alert.links, alert.client_url, alert.notes) == ("", 0, (), "", ())


@pytest.mark.parametrize(
    ("written", "identity"),
    [
        ("p1", "p1:7"),
        (" p1 ", "p1:7"),
        (17, "17:7"),
        (17.0, "17:7"),
        (12345678901234567890, "12345678901234567890:7"),
        ("a:b%", "a%3Ab%25:7"),  # or ("a:b", "c") would be ("a", "b:c")
    ],
)
def test_an_identity_is_text_or_a_number(written: Any, identity: str) -> None:
    assert read(id=written).fingerprint == identity


def test_a_single_identity_stays_as_it_is() -> None:
    assert read_with("", id="rack:4%").dedup_key == "custom/acme:rack:4%"


@pytest.mark.parametrize(
    "written",
    [
        *("", "  ", "null", "NULL", "None", "undefined", None, True, {"id": 1}, ["p1"]),
        *(
            "$ALERT_ID",
            "${ALERT_ID}",
            "$(alert_id)",
            "{TRIGGER.ID}",
            "{{ alert.id }}",
            "{{ $labels.id }}",
            "*monitorID*",
        ),
        *("%ID%", "{HOST.ID}-7", "$ID:7", "id-$ID", "<no value>"),
    ],
)
def test_without_identity_an_alert_is_skipped_and_the_others_stay(written: Any) -> None:
    parsed = parse(PROBLEM, PROBLEM | {"id": written})
    assert [alert.fingerprint for alert in parsed.alerts] == ["p1:7"]
    [skipped] = parsed.skipped
    assert skipped == Skipped(1, "nothing tells it from others: no identity at `id` and `raw_event.host.id`")


@pytest.mark.parametrize(("brace", "found"), [("{3F25-04E0}", True), ("{3}", True), ("{ABC}", False)])
def test_braces_alone_make_no_placeholder(brace: str, found: bool) -> None:
    assert bool(parse(PROBLEM | {"id": brace}).alerts) is found


@pytest.mark.parametrize(
    ("written", "status"),
    [
        (1, Status.FIRING),
        (1.0, Status.FIRING),
        (" 1 ", Status.FIRING),
        (True, Status.FIRING),
        ("PROBLEM", Status.FIRING),
        (0, Status.RESOLVED),
        ("ok", Status.RESOLVED),
        ("Ack", Status.ACKNOWLEDGED),
    ],
)
def test_a_status_is_a_word_in_any_case_or_a_number_as_text(written: Any, status: Status) -> None:
    assert read(state=written).status is status


def test_an_unknown_status_is_refused_by_its_name() -> None:
    parsed = parse(PROBLEM | {"state": "Flapping"}, PROBLEM, PROBLEM | {"state": None})
    assert [skipped.position for skipped in parsed.skipped] == [0, 2]
    assert (
        parsed.skipped[0].reason == "the status 'Flapping' at `state` is none of 1, true, Problem, 0, OK, ACK, Comment"
    )
    assert parsed.skipped[1].reason == "there is no status at `state`"


def test_a_status_to_ignore_neither_pages_nor_is_missed() -> None:
    parsed = parse(PROBLEM | {"state": "comment", "id": None})
    assert (parsed.alerts, parsed.skipped) == ((), ())
    assert parsed.ignored == ("the status 'comment' neither opens nor closes an alert",)


@pytest.mark.parametrize(
    ("written", "severity", "notes"),
    [
        (4, Severity.CRITICAL, ()),
        ("0", Severity.INFO, ()),
        ("Fatal", Severity.CRITICAL, ()),  # as Alertmanager's label is read
        ("P2", Severity.ERROR, ()),
        ("3", Severity.WARNING, ("the severity '3' is not known: taken for warning",)),
        (None, Severity.WARNING, ()),
        ("null", Severity.WARNING, ()),
        ("{EVENT.NSEVERITY}", Severity.WARNING, ()),
    ],
)
def test_a_severity(written: Any, severity: Severity, notes: tuple[str, ...]) -> None:
    alert = read(level=written)
    assert (alert.event.severity, alert.notes) == (severity, notes)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (1801800000, 1_801_800_000_000),
        ("1801800000", 1_801_800_000_000),
        (1801800000123, 1_801_800_000_123),
        ("2027-02-05T04:00:00Z", 1_801_800_000_000),
        ("2027-02-05T04:00:00.000+0000", 1_801_800_000_000),
        ("2027-02-05 04:00", 0),
        ("soon", 0),
    ],
)
def test_a_time_is_rfc_3339_or_counts_from_1970(written: Any, ms: int) -> None:
    alert = read(since=written)
    assert alert.episode_at == ms
    assert alert.episode == alert.event.timestamp
    unread = f"the time {written!r} at `since` cannot be read"
    assert alert.notes == (() if ms else (unread,))


@pytest.mark.parametrize("written", [None, "", "null", 0, "0", "0.0", "0001-01-01T00:00:00Z", "{EVENT.TIME}", True, {}])
def test_no_time_is_nothing_to_speak_of(written: Any) -> None:
    alert = read(since=written, until=written)
    assert (alert.episode_at, alert.episode, alert.notes) == (0, "", ())


def test_an_end_counts_where_it_is_resolved() -> None:
    assert read(until=1801800600).ended_at == 0
    assert read(until=1801800600, state=0).ended_at == 1_801_800_600_000


@pytest.mark.parametrize("missing", [None, "", " \n", "null", "{EVENT.NAME}", "$TITLE", "*text*", {"a": 1}, True])
def test_the_first_summary_that_is_there(missing: Any) -> None:
    assert read(title=missing, name="Disk").event.summary == "Disk"


@pytest.mark.parametrize("text", ["$5 short", "{closed} for today", "100 %", "a*b*c", "&lt;b&gt;"])
def test_text_that_only_looks_unfilled_stays(text: str) -> None:
    assert read(title=text).event.summary == text.replace("&lt;b&gt;", "<b>")


@pytest.mark.parametrize(
    ("tags", "details"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ([{"key": "a", "value": "1"}, {"label": "b", "value": None}], {"a": "1", "b": None}),
        ([{"value": "nameless"}], {}),
        (["a:1", "b"], {"tags": ["a:1", "b"]}),
        ("prod www", {"tags": "prod www"}),
        ([], {}),
        (None, {}),
        ("null", {}),
        ("{EVENT.TAGSJSON}", {}),
    ],
)
def test_labels_are_objects_or_names_with_values_or_keep_their_own_name(tags: Any, details: Any) -> None:
    assert read(tags=tags).event.custom_details == details


def test_details_leave_out_what_is_not_there() -> None:
    fields = "details: {a: a, b: b.c, d: d, e: e}"
    alert = read_with(fields, a="null", b={"c": [1]}, d="$D", e=False)
    assert alert.event.custom_details == {"b": [1], "e": False}


@pytest.mark.parametrize("address", ["javascript:alert(1)", "/relative", None, "{$URL}", 7])
def test_only_web_addresses_are_links(address: Any) -> None:
    assert read(url=address).links == ()


def test_names_that_are_no_words_stand_in_brackets() -> None:
    body = {"alarm id": {"no-1": 5}, "when": ["x", "down"]}
    fields = "identity: \"['alarm id']['no-1']\"\nstatus: {path: \"['when'][1]\", firing: [down]}"
    [alert] = custom(SOURCE, fields)[SOURCE](json.dumps(body).encode(), {}, SOURCE).alerts
    assert alert.fingerprint == "5"


# --- bodies ------------------------------------------------------------------------------------------------------------


def test_a_body_that_is_a_list_is_a_list_of_alerts() -> None:
    body = [{"id": 1, "state": "down"}, {"id": 2, "state": "up"}, 7]
    parsed = PARSE_PLAIN(json.dumps(body).encode(), {}, SOURCE)
    assert [(alert.fingerprint, alert.status.value) for alert in parsed.alerts] == [("1", "firing"), ("2", "resolved")]
    assert [alert.raw for alert in parsed.alerts] == body[:2]
    assert [skipped.position for skipped in parsed.skipped] == [2]


def test_json_is_read_whatever_its_content_type_and_a_form_is_flat() -> None:
    fields = {"id": "4", "state": "down"}
    text = PARSE_PLAIN(json.dumps(fields).encode(), {"content-type": "text/plain; charset=utf-8"}, SOURCE)
    form = PARSE_PLAIN(urlencode(fields).encode(), {"content-type": "application/x-www-form-urlencoded"}, SOURCE)
    assert text == form
    assert text.alerts[0].fingerprint == "4"


def test_no_alerts_are_no_fault() -> None:
    assert parse() == ParsedPayload()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "empty body"),
        ("[1, 2", "not JSON"),
        ("7", "wrong shape: expected a list of alerts at `event.problems`"),
        ('{"event": {"problems": {"id": 1}}}', "wrong shape: expected a list of alerts at `event.problems`"),
    ],
)
def test_a_body_of_another_shape_is_refused(body: str, reason: str) -> None:
    with pytest.raises(BadPayload, match=reason) as refused:
        PARSE_ACME(body.encode(), {}, SOURCE)
    assert refused.value.status == 400


def test_a_plain_body_is_an_object_or_a_list() -> None:
    with pytest.raises(BadPayload, match="wrong shape: expected an object, a form or a list of objects"):
        PARSE_PLAIN(b'"down"', {}, SOURCE)


def test_too_many_alerts_are_refused_as_too_large() -> None:
    with pytest.raises(BadPayload, match="more than 10,000 alerts") as refused:
        PARSE_PLAIN(b"[" + b"0," * 10_000 + b"0]", {}, SOURCE)
    assert refused.value.status == 413


def test_what_many_alerts_share_is_not_copied_without_end() -> None:
    parsed = parse(*(PROBLEM | {"id": number} for number in range(70)), ballast="x" * 1_000_000)
    alert = parsed.alerts[69]
    assert alert.raw == {"event": {"problems": [PROBLEM | {"id": 69}]}}
    assert alert.event.source == "db-2"
    assert alert.notes == ("the body has so many alerts that what they share was left out of raw_event",)


def test_details_that_many_alerts_share_are_not_copied_without_end() -> None:
    labels = {"own": [["x" * 4_000] * 200] * 2}
    parsed = parse(*(PROBLEM | {"id": number, "tags": {"a": "b"}} for number in range(70)), labels=labels)
    alert = parsed.alerts[69]
    assert alert.event.custom_details == {"a": "b"}
    assert "the body has so many alerts that what they share was left out of the details" in alert.notes
    few = parse(*(PROBLEM | {"id": number} for number in range(7)), labels=labels)
    assert few.alerts[0].event.custom_details == labels
    assert few.alerts[0].notes == ()


def test_a_path_that_many_alerts_share_is_read_as_each_field_needs_it() -> None:
    fields = """
        alerts: problems
        identity: id
        status: {path: raw_event.word, firing: ["10"]}
        summary: raw_event.word
        details: {word: raw_event.word}
        labels: raw_event.word
        timestamps: {started: raw_event.word}
    """
    body = json.dumps({"problems": [{"id": 1}, {"id": 2}], "word": 10})
    first, second = custom(SOURCE, fields)[SOURCE](body.encode(), {}, SOURCE).alerts
    assert (first.fingerprint, second.fingerprint) == ("1", "2")
    assert first.event == second.event
    assert (first.event.summary, first.event.custom_details) == ("10", {"word": 10})


def test_more_labels_than_are_shown_are_left_out_with_a_note() -> None:
    alert = read(tags={f"a{number}": number for number in range(500)})
    assert list(alert.event.custom_details) == [f"a{number}" for number in range(128)]
    assert "more than 128 details" in alert.notes[0]
    alert = read(tags=[{"name": f"a{number}", "value": number} for number in range(500)])
    assert list(alert.event.custom_details) == [f"a{number}" for number in range(128)]
    assert "more than 128 details" in alert.notes[0]


@pytest.mark.parametrize("field", ["summary", "source", "component", "group", "class"])
def test_a_long_line_is_cut_with_a_mark(field: str) -> None:
    event = read_with(f"{field}: text", text="x" * 5_000).event
    shown = event.class_ if field == "class" else getattr(event, field)
    assert len(shown) == LIMITS.text
    assert shown.endswith(CUT_MARK)


def test_long_identities_and_episodes_that_differ_only_at_their_ends_stay_two() -> None:
    fields = "alerts: problems\nidentity: [id, raw_event.key]\nepisode: raw_event.key\nstatus: {path: s, firing: ['1']}"

    def read_key(key: str) -> Alert:
        body = json.dumps({"problems": [{"id": 1, "s": 1}], "key": key})
        [alert] = custom(SOURCE, fields)[SOURCE](body.encode(), {}, SOURCE).alerts
        return alert

    one, two = read_key("x" * 5_000 + "1"), read_key("x" * 5_000 + "2")
    assert one.id != two.id
    assert one.episode != two.episode
    assert len(one.episode) < LIMITS.key


# --- what is wrong with fields -----------------------------------------------------------------------------------------


STATUS = "status: {path: state, firing: [down]}"


@pytest.mark.parametrize(
    ("source", "fields", "problem"),
    [
        (SOURCE, STATUS, "4:7: `identity` is missing"),
        (SOURCE, "identity: id", "4:7: `status` is missing"),
        (SOURCE, "identity: id\nstatus: {path: state, resolved: [up]}", "5:15: `firing` is missing"),
        (SOURCE, "identity: id\nstatus: {path: s, firing: [1]}", "5:34: `firing` is `1`; write text, in quotes if it"),
        (SOURCE, f"identity: id\n{STATUS}\nsumary: x", "6:7: unknown key `sumary`; did you mean `summary`?"),
        (
            SOURCE,
            "identity: id\nstatus: {path: s, firing: [down], resoved: [up]}",
            "5:41: unknown key `resoved`; did you mean `resolved`?",
        ),
        (
            SOURCE,
            "identity: id\nstatus: {path: s, firing: [down, '1'], ignored: [x, DOWN]}",
            "5:59: `DOWN` stands for `firing` already; remove one of the two",
        ),
        (
            SOURCE,
            f"identity: id\n{STATUS}\nseverity: {{path: l, critical: [a], info: [A]}}",
            "6:49: `A` stands for `critical`",
        ),
        (SOURCE, f"identity: id\n{STATUS}\nseverity: {{critical: [a]}}", "6:17: `severity` needs a `path`"),
        (SOURCE, f"identity: id\n{STATUS}\nseverity: {{path: l, default: bad}}", "6:36: `bad` is not known"),
        (SOURCE, f"identity: [id, a..b]\n{STATUS}", "4:24: after a dot comes a plain name"),
        (SOURCE, f"identity: id\n{STATUS}\ndetails: {{why: 'alarm-text'}}", "6:28: a name with `-` is written in"),
        (SOURCE, f"identity: id\n{STATUS}\nalerts: event.when", "6:21: `when` is a reserved word"),
        (SOURCE, f"identity: raw_event\n{STATUS}", "4:17: write the path of a field"),
        (SOURCE, f"identity: id == 1\n{STATUS}", "4:17: write the path of a field"),
        (
            SOURCE,
            f"identity: [id, title]\n{STATUS}\nsummary: title",
            "4:22: `title` is the summary; identity is what never changes, such as an id",
        ),
        ("custom", PLAIN, "2:3: write `custom/` and a name of a-z, 0-9, _ and -"),
        ("custom/Acme", PLAIN, "2:3: write `custom/` and a name of a-z, 0-9, _ and -"),
        ("datadog/acme", PLAIN, "3:5: only a custom sender has `fields`; write `custom/acme`"),
    ],
)
def test_a_mistake_is_named_with_its_place(source: str, fields: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RulesInvalid) as invalid:
        load_rules(write_sender(tmp_path, source, fields))
    [found] = invalid.value.problems
    assert found.startswith(f"{tmp_path}/alertrouter.yaml:{problem}"), found


def test_a_custom_sender_needs_fields(tmp_path: Path) -> None:
    write_sender(tmp_path, SOURCE, PLAIN)
    (tmp_path / "alertrouter.yaml").write_text("sources:\n  custom/acme: {}\n")
    with pytest.raises(RulesInvalid, match="2:3: `custom/acme` needs `fields`"):
        load_rules(tmp_path)


@pytest.mark.parametrize(
    ("source", "there", "reason"),
    [
        ("custom/zabix", {SOURCE: PARSE_ACME}, "unknown custom sender 'custom/zabix'; one of: custom/acme"),
        ("custom", {SOURCE: PARSE_ACME}, "unknown custom sender 'custom'; one of: custom/acme"),
        ("custom/acme", {}, "unknown custom sender 'custom/acme'; alertrouter.yaml describes none under `sources`"),
        ("nagios", {}, "unknown sender 'nagios'; one of: alertmanager, "),
    ],
)
def test_a_sender_that_is_not_there_is_told_which_are(source: str, there: Any, reason: str) -> None:
    with pytest.raises(BadPayload) as refused:
        find_parser(source, there)
    assert refused.value.reason.startswith(reason)
    assert refused.value.status == 404


def test_named_senders_are_read_as_their_sender_is() -> None:
    assert find_parser("datadog/team-a") is find_parser("datadog")
    assert find_parser(SOURCE, {SOURCE: PARSE_ACME}) is PARSE_ACME
