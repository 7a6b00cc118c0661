"""Every Redis key is made here. One hash tag per installation: every script is legal on Redis Cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    r"""The keys of one installation.

    alert:    prefix of the alert records, hashes: `alert` + id
    due:      zset of ids to judge, by the time they are due (ms)
    waiting:  set of routing keys, each by a hash of it, that have sends waiting
    wait:     prefix of one zset per routing key, sends by rank and age: `wait` + a hash of it
    paused:   zset of routing keys, each by a hash of it, by when they may be called again (ms): PagerDuty asked for it
    failing:  hash of routing keys, each by a hash of it, by how many calls failed since the last that did not
    calls:    prefix of one zset per routing key, the calls of the last 60 s: `calls` + a hash of it
    owners:   zset of workers by their last heartbeat (ms)
    leases:   prefix of one zset per worker, its leases by their end (ms): `leases` + owner
    fence:    counter that numbers the leases
    parked:   zset of ids that rules or PagerDuty keep from being sent, by when that was found (ms)
    count:    prefix of one zset per threshold of a rule, what it counted by time (ms): `count` + its key
    storms:   hash of routing keys, each by a hash of it, that more waits for than a minute takes, and when it was looked
    digests:  hash of services whose digest is open, by when it was last told (ms)
    gathered: prefix of one set per open digest, the ids of its members: `gathered` + service
    cache:    prefix of what rules remember, one string each: `cache` + name
    members:  prefix of one set per incident that several alerts share: `members` + destination + key
    claimed:  prefix of one string per dedup_key that a client chose, the id of the alert that is told under it:
              `claimed` + routing key, by a hash of it + `:` + dedup_key
    epoch:    random text, as old as the data: another one means that what was stored is gone
    dead:     hash of dead letters, what each is about to JSON: "<kind>\n<where>\n<when>\n<id>"
    letters:  zset of the same by their numbers, which are the times (ms) they were written, made unique
    bodies:   prefix of one zset per sender, of its unreadable bodies among the dead letters: `bodies` + sender
    noticed:  zset of senders by when somebody was last told that they cannot be understood, or, with `oversized:` before
              the name, that they send too much (ms)
    heard:    zset of heartbeats by when they were last heard (ms)
    watch:    hash of how heartbeats are watched: `since` when and until when (`at`) somebody did without a break, and
              "h:<name>": "<first> <last>", when each was first and last asked after (all ms)
    senders:  zset of senders by when one of their webhooks was last taken (ms)
    refused:  hash of senders to what was refused since, as JSON: {"at": up to three times (ms), "said": words}
    outage:   hash of what the second channel was told of PagerDuty: `told_at`, `failing_at` (ms)
    clock:    what replicas agree on about the time
    sources:  hash of senders, each with when it was last heard and since when without a long silence (ms)
    history:  capped stream of what was heard, what was sent, and how alerts ended
    changes:  zset of change events that wait for PagerDuty, "<when>\\t<JSON>", by when each is due (ms)
    changed:  hash of services to their latest changes as JSON
    silences: hash of what people on call keep back, id to JSON
    tests:    zset of ids of test pages, by when each is to be resolved (ms)
    """

    alert: str
    due: str
    waiting: str
    wait: str
    paused: str
    failing: str
    calls: str
    owners: str
    leases: str
    fence: str
    parked: str
    count: str
    storms: str
    digests: str
    gathered: str
    cache: str
    members: str
    claimed: str
    epoch: str
    clock: str
    sources: str
    dead: str
    letters: str
    bodies: str
    noticed: str
    heard: str
    watch: str
    senders: str
    refused: str
    outage: str
    history: str
    silences: str
    tests: str
    changes: str
    changed: str


def keys_of(instance: str) -> Keys:
    """The keys of the installation named `instance`."""
    tag = f"{{ar:{instance}}}:"
    return Keys(
        alert=tag + "alert:",
        due=tag + "due",
        waiting=tag + "waiting",
        wait=tag + "wait:",
        paused=tag + "paused",
        failing=tag + "failing",
        calls=tag + "calls:",
        owners=tag + "owners",
        leases=tag + "leases:",
        fence=tag + "fence",
        parked=tag + "parked",
        count=tag + "count:",
        storms=tag + "storms",
        digests=tag + "digests",
        gathered=tag + "gathered:",
        cache=tag + "cache:",
        members=tag + "members:",
        claimed=tag + "claimed:",
        epoch=tag + "epoch",
        clock=tag + "clock",
        sources=tag + "sources",
        dead=tag + "dead",
        letters=tag + "letters",
        bodies=tag + "bodies:",
        noticed=tag + "noticed",
        heard=tag + "heard",
        watch=tag + "watch",
        senders=tag + "senders",
        refused=tag + "refused",
        outage=tag + "outage",
        history=tag + "history",
        silences=tag + "silences",
        tests=tag + "tests",
        changes=tag + "changes",
        changed=tag + "changed",
    )
