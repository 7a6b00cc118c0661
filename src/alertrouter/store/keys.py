"""Every Redis key is made here. One hash tag per installation: every script is legal on Redis Cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one installation.

    alert:    prefix of the alert records, hashes: `alert` + id
    due:      zset of ids to judge, by the time they are due (ms)
    waiting:  set of destinations that have sends waiting
    wait:     prefix of one zset per destination, ids by rank and age: `wait` + destination
    calls:    prefix of one zset per routing key, the calls of the last 60 s: `calls` + a hash of it
    owners:   zset of workers by their last heartbeat (ms)
    leases:   prefix of one zset per worker, its leases by their end (ms): `leases` + owner
    fence:    counter that numbers the leases
    parked:   zset of ids that rules or PagerDuty keep from being sent, by when that was found (ms)
    count:    prefix of one zset per threshold of a rule, what it counted by time (ms): `count` + its key
    cache:    prefix of what rules remember, one string each: `cache` + name
    members:  prefix of one set per incident that several alerts share: `members` + destination + key
    epoch:    random text, as old as the data: another one means that what was stored is gone
    clock:    what replicas agree on about the time
    sources:  hash of senders, each with when it was last heard and since when without a long silence (ms)
    dead:     hash of dead letters, "<id> <version> <destination>" to JSON
    history:  capped stream of what was heard, what was sent, and how alerts ended
    """

    alert: str
    due: str
    waiting: str
    wait: str
    calls: str
    owners: str
    leases: str
    fence: str
    parked: str
    count: str
    cache: str
    members: str
    epoch: str
    clock: str
    sources: str
    dead: str
    history: str


def keys_of(instance: str) -> Keys:
    """The keys of the installation named `instance`."""
    tag = f"{{ar:{instance}}}:"
    return Keys(
        alert=tag + "alert:",
        due=tag + "due",
        waiting=tag + "waiting",
        wait=tag + "wait:",
        calls=tag + "calls:",
        owners=tag + "owners",
        leases=tag + "leases:",
        fence=tag + "fence",
        parked=tag + "parked",
        count=tag + "count:",
        cache=tag + "cache:",
        members=tag + "members:",
        epoch=tag + "epoch",
        clock=tag + "clock",
        sources=tag + "sources",
        dead=tag + "dead",
        history=tag + "history",
    )
