"""Which value of a Datadog payload is which variable, whatever the template calls it. No meaning is given to it here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alertrouter.sources.values import NOTHING, word

_SEPARATORS = str.maketrans({"_": "", "-": "", " ": "", "[": ".", "]": ""})


def plain(name: str) -> str:
    """A name or word as it is compared: "Re-No Data" and "re_no_data" are the same, and so are "alert[id]" and "alert.id"."""
    return name.lower().translate(_SEPARATORS)


#: Our name for a variable, and where it may be found: first in the template of docs/senders/datadog.md, then in other people's.
#: A dot goes one level down.
_PLACES: Mapping[str, tuple[str, ...]] = {
    field: tuple(plain(place) for place in places.split())
    for field, places in {
        "event_id": "id event_id event.event_id event.id",
        "event_type": "event_type event.event_type event.type",
        "event_title": "title event_title event.title event.event_title",
        "alert_title": "alert.title alert.alert_title alert_title",
        "text": "text body text_only_msg event_msg message event.text event.body event.message alert.message",
        "date": "date event.date date_posix timestamp last_updated event.last_updated last_updated_posix",
        "org_id": "org.id org_id organization.id",
        "org_name": "org.name org_name organization.name",
        "monitor_id": "alert.id alert.alert_id alert_id monitor_id monitor.id alert.monitor_id",
        "transition": "alert.transition alert.alert_transition alert_transition transition event.transition",
        "alert_type": "alert.type alert.alert_type alert_type event.alert_type",
        "alert_priority": "alert.priority alert.alert_priority alert_priority monitor.priority",
        "priority": "priority event.priority",
        "cycle_key": "alert.cycle_key alert.alert_cycle_key alert_cycle_key cycle_key event.cycle_key",
        "aggreg_key": "alert.aggreg_key event.aggreg_key aggreg_key aggregation_key event.aggregation_key",
        "scope": "alert.scope alert.alert_scope alert_scope scope",
        "status_text": "alert.status alert.alert_status alert_status status",
        "metric": "alert.metric alert.alert_metric alert_metric metric",
        "metric_namespace": "alert.metric_namespace alert.alert_metric_namespace metric_namespace",
        "query": "alert.query alert.alert_query alert_query query",
        "hostname": "hostname host event.hostname alert.hostname",
        "tags": "tags event_tags event.tags event.event_tags alert.tags",
        "link": "link event_url event.event_url event.link event.url url",
        "snapshot": "snapshot event.snapshot alert.snapshot",
        "user": "user event.user",
        "username": "username event.username",
        "email": "email event.email",
    }.items()
}

#: These tell alerts apart: taking a variable's name for one of them would make one alert of many.
_IDENTITIES = frozenset(("event_id", "org_id", "monitor_id", "cycle_key", "aggreg_key"))
#: People write these, and may begin them with a dollar: "$AAPL feed is late".
_PROSE = frozenset(("event_title", "alert_title", "text", "status_text", "query"))

_VARIABLE_NAME = re.compile(r"[A-Z_]+")


@dataclass(frozen=True, slots=True)
class Fields:
    """The variables of one payload that have a value, by our names.

    tags:            split and trimmed, repeats and tags without a colon included.
    has_transition:  True if the template names the transition, even where Datadog had none to give.
    """

    texts: Mapping[str, str]
    tags: tuple[str, ...]
    has_transition: bool

    def __getitem__(self, field: str) -> str:
        """The value of a variable, "" where it has none."""
        return self.texts.get(field, "")


def read_fields(payload: Mapping[str, Any]) -> Fields:
    """The variables in a template's payload or a form."""
    values = _by_place(payload)
    texts: dict[str, str] = {}
    for field, places in _PLACES.items():
        for place in places:
            text = word(values.get(place)).strip()
            if not _is_absent(field, text):
                texts[field] = text
                break
    return Fields(
        texts=texts,
        tags=_read_tags(values, texts.pop("tags", "")),
        has_transition=any(
            place in values and not word(values[place]).startswith("$") for place in _PLACES["transition"]
        ),
    )


def split_tags(text: str) -> tuple[str, ...]:
    """Tags or scope, separated by commas, without blanks around them."""
    return tuple(tag for part in text.split(",") if (tag := part.strip()))


def _by_place(payload: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in payload.items():
        place = plain(name)
        if isinstance(value, dict):
            for inner, inner_value in value.items():
                values.setdefault(f"{place}.{plain(inner)}", inner_value)
        else:
            values.setdefault(place, value)
    return values


def _is_absent(field: str, text: str) -> bool:
    """Nothing, or what stands for nothing, or a variable Datadog did not know and left in the text: "$ALERT_SCOPES"."""
    if text in NOTHING:
        return True
    if text.startswith("$"):
        return field not in _PROSE or " " not in text
    return field in _IDENTITIES and _VARIABLE_NAME.fullmatch(text) is not None  # "ID": only its dollar was replaced


def _read_tags(values: Mapping[str, Any], text: str) -> tuple[str, ...]:
    """Tags as Datadog writes them, or as a list, which some templates make of `$TAGS`."""
    if text:
        return split_tags(text)
    for place in _PLACES["tags"]:
        value = values.get(place)
        if isinstance(value, list):
            return tuple(tag for item in value for tag in split_tags(word(item)))
    return ()
