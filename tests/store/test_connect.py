"""Addresses of Redis, and a client that finds the server in charge: alone, behind Sentinel, on a Cluster."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import uvloop
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from alertrouter.alert import Alert
from alertrouter.app import running
from alertrouter.errors import SettingsInvalid, StoreUnavailable
from alertrouter.record import Outcome, State
from alertrouter.settings import load_settings
from alertrouter.store.connect import Client, View, choose_master, connect
from alertrouter.store.health import Health
from alertrouter.store.replicas import Replicas
from alertrouter.store.store import AlertStore, Judged, Queued, Result, Settlement, Threshold
from tests.alerts import NIGHT, SECOND, make_alert
from tests.conftest import program
from tests.rig.pagerduty import REPOSITORY
from tests.rig.proxy import FaultProxy
from tests.rig.redis_servers import SLOW_TO_LOAD, Cluster, SentinelSet
from tests.rig.servers import RedisServer
from tests.waiting import until


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "write redis://"),
        ("http://localhost", "write redis://"),
        ("redis://", "names no host"),
        ("redis://host:port", "colon is no port"),
        ("redis://host/alerts", "is no database number"),
        ("redis://host/0?socket_timout=1", "socket_timout"),
        ("unix://", "names no path"),
        ("unix+sentinel:///s/mymaster", "it begins with something else"),
        ("redis+ring://a,b", "it begins with something else"),
        ("redis+sentinel://a:26379,b:26379", "name of the master is missing"),
        ("redis+sentinel:///mymaster", "names no host"),
        ("redis+sentinel://a,,b/mymaster", "a host is missing between the commas"),
        ("redis+sentinel://a:b/mymaster", "colon is no port"),
        ("redis+sentinel://a/mymaster/zero", "is no database number"),
        ("redis+cluster://a:6379/1", "a Cluster has no database but 0"),
        ("rediss+cluster://a?ssl_nonsense=1", "ssl_nonsense"),
    ],
)
def test_a_wrong_address_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"ALERTROUTER_REDIS_URL: .*redis\+sentinel://host1:26379") as refused:
        connect(url)
    assert says in str(refused.value)


@pytest.mark.parametrize("password", ["sesame", "sesame/open", "open/sesame", "open#sesame", "open?sesame", "1/sesame"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://me:{}@a:x/0",
        "redis://:{}@a/zero",
        "rediss://me:{}@a/0?ssl_nonsense=1",
        "redis+sentinel://me:{}@a,,b/mymaster",
        "redis+sentinel://me:{}@a/mymaster/zero",
        "redis+cluster://me:{}@a/1",
        "{}",
        "{}+cluster://a",
    ],
)
def test_no_password_is_shown(url: str, password: str) -> None:
    """Nor a part of one that should have been encoded, which is why the address is wrong."""
    with pytest.raises(SettingsInvalid) as refused:
        connect(url.format(password))
    assert "sesame" not in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback shows no more"


def test_a_client_shows_no_password() -> None:
    for url in (
        "redis://me:sesame@a",
        "rediss://:sesame@a?ssl_password=sesame",
        "redis+sentinel://me:sesame@a/mymaster",
    ):
        assert "sesame" not in repr(connect(url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://:pw@[::1]:6379/3",
        "rediss://host:6379/0?ssl_ca_certs=/ca.pem",
        "unix:///run/redis.sock",
        "redis+sentinel://s1,s2:26380/mymaster",
        "rediss+sentinel://me:pw@[::1]:26379,s2/mymaster/2",
        "redis+cluster://n1,n2:6380",
        "rediss+cluster://me:pw@n1/0",
    ],
)
def test_a_right_address_is_taken(url: str) -> None:
    assert isinstance(connect(url), Client)


A, B = ("a", 6379), ("b", 6379)


@pytest.mark.parametrize(
    ("views", "master"),
    [
        ([View(A, 1)], A),
        ([View(A, 1), View(B, 2), View(A, 1)], B),
        ([View(A, 1), View(A, 1, doubted=True), View(A, 1)], A),
        ([View(A, 1), View(A, 1, doubted=True), View(A, 1, doubted=True)], None),
        ([View(A, 1), View(A, 1), View(A, 1, down=True)], None),
        ([View(A, 1, doubted=True, down=True), View(B, 2)], B),
        ([View(B, 2), View(A, 1, doubted=True), View(A, 1, doubted=True)], B),
    ],
)
def test_the_winner_of_the_newest_election_is_the_master(views: list[View], master: tuple[str, int] | None) -> None:
    assert choose_master(views) == master


@pytest.fixture(params=["alone", "limited", "sentinel", "guarded", "cluster"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of each kind of installation, and one with only the rights that the documentation gives it."""
    redis = program("redis-server")
    if request.param == "alone":
        async with RedisServer(redis, tmp_path) as server, connect(server.url) as client:
            yield client
    elif request.param == "limited":
        async with RedisServer(redis, tmp_path) as server:
            line = re.search("^user .*", (REPOSITORY / "docs/redis.md").read_text(), re.MULTILINE)
            assert line is not None
            _, *user = line[0].split()
            assert await server.command("ACL", "SETUSER", *user) is not None
            async with connect(server.url.replace("//", "//alertrouter:change-me@")) as client:
                yield client
    elif request.param in ("sentinel", "guarded"):
        guarded = request.param == "guarded"
        async with SentinelSet(redis, tmp_path, guarded=guarded) as sentinels, connect(sentinels.url) as client:
            yield client
    else:
        async with Cluster(redis, tmp_path) as cluster, connect(cluster.url) as client:
            yield client


async def test_all_that_the_store_does_works(client: Client) -> None:
    store = AlertStore(client, owner="me")
    alert, other = make_alert("f1"), make_alert("f2", severity="info")
    await store.beat(NIGHT)
    assert await store.accept([alert, other], NIGHT) == ["new", "new"]
    [record, parked], _ = await store.claim_due(NIGHT, 10)
    assert await store.count(record, [Threshold("rule", 60 * SECOND)], NIGHT) == [1]
    await store.reset_counts(["rule"])
    await store.remember({"cluster": "prod"})
    assert await store.remembered(["cluster", "region"]) == ["prod", None]
    await store.judged([_judged(record, ("pagerduty", 1, "k" * 32, "shared")), _judged(parked)], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 110)
    told = claim.record.told_of("pagerduty")
    await store.join_incident(claim.record, told)
    assert await store.settle(_delivered(claim), NIGHT)
    assert await store.leave_incident(claim.record, told) == 0
    await store.repair_members(told, NIGHT)
    await store.recall(NIGHT)
    assert (await store.backlog(NIGHT))["due"] == 1
    [entry, *_] = await store.history(10)
    assert entry["outcome"] == "delivered"
    assert await store.time() > 0
    await store.void_leases()
    await store.leave()
    found = await store.record(alert.id)
    assert found is not None
    assert found.outcome is Outcome.DELIVERED
    await AlertStore(client, wait_replicas=1).beat(NIGHT)
    await Health(client).look()


def _judged(record: object, *sends: tuple[str, int, str, str]) -> Judged:
    return Judged(
        record=record,  # type: ignore[arg-type]
        outcome=Outcome.PENDING if sends else Outcome.SUPPRESSED,
        rule="",
        reason="",
        service="",
        wake_at=0,
        closed=False,
        parked=not sends,
        sends=tuple(Queued(*send) for send in sends),
    )


def _delivered(claim: object) -> Settlement:
    return Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, state=State.TRIGGERED, version=1)  # type: ignore[arg-type]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(program("redis-server"), tmp_path / "redis") as server:
        yield server


async def test_a_restart_between_two_commands_is_not_noticed(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client)
        await store.accept([make_alert()], NIGHT)
        await server.kill()
        await server.start()
        assert await store.accept([make_alert()], NIGHT) == ["duplicate"]


async def test_what_became_a_replica_is_asked_again_on_a_new_connection(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client)
        await store.accept([make_alert()], NIGHT)
        await server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
            await store.accept([make_alert("f2")], NIGHT)
        await server.command("REPLICAOF", "NO", "ONE")
        assert await store.accept([make_alert("f2")], NIGHT) == ["new"]


async def test_loading_is_said_at_once_and_waited_out(tmp_path: Path) -> None:
    async with RedisServer(program("redis-server"), tmp_path, *SLOW_TO_LOAD) as server, connect(server.url) as client:
        store = AlertStore(client)
        await client.execute_command("DEBUG", "POPULATE", "1000", "filler")
        await client.bgrewriteaof()

        async def is_rewritten() -> bool:
            return not (await client.info("persistence"))["aof_rewrite_in_progress"]

        await until(is_rewritten)
        await server.kill()
        starting = asyncio.create_task(server.start())
        said = set()
        while not starting.done():
            try:
                await store.accept([make_alert()], NIGHT)
            except StoreUnavailable as error:
                said.add(str(error).split(":")[1].strip())
            await asyncio.sleep(0.02)
        assert "BusyLoadingError" in said
        await store.accept([make_alert()], NIGHT)


async def test_no_command_takes_longer_than_two_seconds(server: RedisServer) -> None:
    async with FaultProxy(f"127.0.0.1:{server.port}") as proxy, connect(f"redis://{proxy.address}") as client:
        await client.ping()
        proxy.blackhole()
        began = asyncio.get_running_loop().time()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        assert asyncio.get_running_loop().time() - began < 2.5
        await proxy.heal()
        assert await client.ping()
        await client.aclose()
        await until(lambda: not proxy._links)


async def test_nobody_gets_the_answer_to_a_command_that_was_given_up(server: RedisServer) -> None:
    """redis-py once left it in the connection, for whoever asked next: https://github.com/redis/redis-py/issues/2665"""
    async with FaultProxy(f"127.0.0.1:{server.port}") as proxy, connect(f"redis://{proxy.address}") as client:
        await asyncio.gather(*(client.set(f"k{n}", n) for n in range(50)))
        proxy.slow(0.001, 0.01)
        for step in range(20):
            asking = [asyncio.create_task(client.execute_command("GET", f"k{n}")) for n in range(50)]
            await asyncio.sleep(step * 0.002)
            for task in asking[step % 3 :: 3]:
                task.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            wrong = [
                (n, answer)
                for n, answer in enumerate(answers)
                if not isinstance(answer, asyncio.CancelledError) and answer != str(n).encode()
            ]
            assert not wrong
        await client.aclose()
        await until(lambda: not proxy._links)


async def test_more_than_all_connections_at_once_wait(server: RedisServer) -> None:
    async with connect(server.url) as client:
        answers = await asyncio.gather(*(client.incr("n") for _ in range(500)))
    assert sorted(answers) == list(range(1, 501))


@pytest.mark.parametrize("query", ["", "?socket_timeout=5"])
async def test_whoever_is_cancelled_in_the_midst_of_a_command_ends(server: RedisServer, query: str) -> None:
    """Or else a service that is told to end hangs for ever: whoever asks again and again never hears of it."""

    async def ask_for_ever(client: Client) -> None:
        while True:
            await client.ping()

    chance = random.Random(query)
    async with connect(server.url + query) as client:
        for _ in range(100):
            asking = asyncio.create_task(ask_for_ever(client))
            for _ in range(20):
                await client.ping()
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=5)
            assert done, "it goes on"


async def test_scripts_survive_a_flush_at_every_step(server: RedisServer) -> None:
    async with connect(server.url) as client, connect(server.url) as other:
        store = AlertStore(client)
        flushing = asyncio.create_task(_flush_scripts(other))
        for n in range(200):
            await store.accept([make_alert(f"f{n}")], NIGHT)
        flushing.cancel()
        assert (await store.backlog(NIGHT))["due"] == 200


async def _flush_scripts(client: Client) -> None:
    while True:
        await client.script_flush()


async def test_the_master_that_takes_over_from_a_dead_one_is_found(tmp_path: Path) -> None:
    async with SentinelSet(program("redis-server"), tmp_path) as sentinels, connect(sentinels.url) as client:
        first, second = sentinels.servers
        assert await client.incr("n") == 1
        assert client.server == f"127.0.0.1:{first.port}"
        await first.kill()

        async def writes() -> bool:
            try:
                return await client.incr("n") >= 2
            except (RedisError, OSError):
                return False

        await until(writes, 20)
        assert client.server == f"127.0.0.1:{second.port}"


async def test_the_master_that_takes_over_from_one_that_lives_on_is_found(tmp_path: Path) -> None:
    """Cut off from its like it still serves us, so nothing but Sentinel says that it is the wrong one."""
    async with SentinelSet(program("redis-server"), tmp_path) as sentinels, connect(sentinels.url) as client:
        first, second = sentinels.servers
        await client.ping()
        await sentinels.cut_off(first)

        async def moved() -> bool:
            await client.ping()
            return client.server == f"127.0.0.1:{second.port}"

        await until(moved, 20)
        await client.set("n", 1)
        assert await second.command("GET", "n") == b"1"


async def test_a_master_that_sentinel_does_not_know_is_named(tmp_path: Path) -> None:
    async with SentinelSet(program("redis-server"), tmp_path) as sentinels:
        address = sentinels.url.replace("/mymaster", "/yourmaster")
        async with connect(address) as client:
            with pytest.raises(RedisError, match="no Sentinel that answers knows a master named 'yourmaster'"):
                await client.ping()


async def test_a_slot_that_moved_is_followed(tmp_path: Path) -> None:
    async with Cluster(program("redis-server"), tmp_path) as cluster, connect(cluster.url, instance="east") as client:
        store = AlertStore(client, instance="east")
        await store.backlog(NIGHT)
        slot = key_slot(store.keys.due.encode())
        before = await cluster.owner(slot)
        after = next(node for node in cluster.nodes if node is not before)
        assert client.server == f"127.0.0.1:{before.port}"
        await cluster.give(slot, after)
        assert await store.accept([make_alert()], NIGHT) == ["new"]
        assert client.server == f"127.0.0.1:{after.port}"


async def test_a_slot_on_its_way_is_waited_out(tmp_path: Path) -> None:
    async with Cluster(program("redis-server"), tmp_path) as cluster, connect(cluster.url) as client:
        store = AlertStore(client)
        alerts = [make_alert(f"f{n}") for n in range(5)]
        await store.accept(alerts, NIGHT)
        slot = key_slot(store.keys.due.encode())
        owner = await cluster.owner(slot)
        after = next(node for node in cluster.nodes if node is not owner)
        await cluster.begin_to_move(slot, after)
        with pytest.raises(StoreUnavailable, match=r"TryAgainError|AskError"):
            await store.accept([*alerts, make_alert("new")], NIGHT)
        await cluster.end_moving(slot, after)
        heard = await store.accept([*alerts, make_alert("new")], NIGHT)
        assert heard == ["duplicate"] * 5 + ["new"]


async def test_a_node_that_hangs_does_not_hold_up_the_search(tmp_path: Path) -> None:
    async with Cluster(program("redis-server"), tmp_path) as cluster, connect(cluster.url) as client:
        owner = await cluster.owner(key_slot(b"{ar:main}"))
        hanging = next(node for node in cluster.nodes if node is not owner)
        hanging.freeze()
        began = asyncio.get_running_loop().time()
        await client.time()
        assert asyncio.get_running_loop().time() - began < 0.5


def test_another_master_gets_its_own_half_minute() -> None:
    replicas = Replicas(1)
    assert not replicas.heard(0, "a:1", NIGHT)
    assert not replicas.heard(0, "a:1", NIGHT + 29 * SECOND)
    assert not replicas.heard(0, "b:1", NIGHT + 31 * SECOND)
    assert not replicas.heard(0, "b:1", NIGHT + 60 * SECOND)
    assert replicas.heard(0, "b:1", NIGHT + 61 * SECOND)
    assert not replicas.heard(0, "c:1", NIGHT + 62 * SECOND)
    assert replicas.heard(1, "c:1", NIGHT + 63 * SECOND)
    assert not replicas.heard(0, "c:1", NIGHT + 99 * SECOND)


async def test_the_embedded_redis_has_no_replicas_to_wait_for(tmp_path: Path) -> None:
    given = {"data_dir": tmp_path, "pagerduty_routing_key": "d" * 32, "redis_wait_replicas": 1}
    with pytest.raises(SettingsInvalid, match=r"ALERTROUTER_REDIS_WAIT_REPLICAS: .* set ALERTROUTER_REDIS_URL"):
        async with running(load_settings({}, given), {}):
            pytest.fail("it runs")


class TestReplicas:
    """Accept is confirmed only when the replicas have it, unless they have been missing for half a minute."""

    @pytest.fixture
    async def sentinels(self, tmp_path: Path) -> AsyncIterator[SentinelSet]:
        async with SentinelSet(program("redis-server"), tmp_path) as sentinels:
            yield sentinels

    async def test_missing_replicas_are_waived_in_time_and_counted_on_again(self, sentinels: SentinelSet) -> None:
        _, replica = sentinels.servers
        async with connect(sentinels.url) as client:
            store = AlertStore(client, wait_replicas=1)
            await store.beat(NIGHT)
            assert await store.accept([make_alert()], NIGHT) == ["new"]
            await replica.kill()
            with pytest.raises(StoreUnavailable, match="stored on 0 of 1 replicas"):
                await store.accept([make_alert("f2")], NIGHT)
            await store.beat(NIGHT)
            await store.beat(NIGHT + 29 * SECOND)
            assert store.warnings() == []
            with pytest.raises(StoreUnavailable):
                await store.accept([make_alert("f3")], NIGHT)
            await store.beat(NIGHT + 30 * SECOND)
            assert await store.accept([make_alert("f4")], NIGHT) == ["new"]
            assert "fewer than 1 replicas" in store.warnings()[0]
            assert await _status_of_alarm(store) == "firing"

            await replica.start()

            async def whole() -> bool:
                await store.beat(NIGHT + 60 * SECOND)
                return store.warnings() == []

            await until(whole, 20)
            assert await _status_of_alarm(store) == "resolved"

    async def test_nothing_is_sent_that_no_replica_knows_of(self, sentinels: SentinelSet) -> None:
        """Who takes over would take the alert for one that was never sent, and forget it together with its resolve."""
        _, replica = sentinels.servers
        async with connect(sentinels.url) as client:
            store = AlertStore(client, owner="me", wait_replicas=1)
            await store.accept([make_alert()], NIGHT)
            [record], _ = await store.claim_due(NIGHT, 10)
            await store.judged([_judged(record, ("pagerduty", 1, "k" * 32, ""))], NIGHT)
            await replica.kill()
            with pytest.raises(StoreUnavailable, match="stored on 0 of 1 replicas"):
                await store.claim_sends(NIGHT, 10, 0)

    async def test_an_alarm_that_an_earlier_process_raised_ends(self, sentinels: SentinelSet) -> None:
        _, replica = sentinels.servers
        async with connect(sentinels.url) as client:
            store = AlertStore(client, wait_replicas=1)
            await replica.kill()
            await store.beat(NIGHT)
            await store.beat(NIGHT + 30 * SECOND)
            assert await _status_of_alarm(store) == "firing"
            await AlertStore(client, wait_replicas=0).beat(NIGHT + 60 * SECOND)
            assert await _status_of_alarm(store) == "resolved"


async def _status_of_alarm(store: AlertStore) -> str:
    record = await store.record("alertrouter:redis-replicas-gone")
    assert record is not None
    return record.status.value


@pytest.mark.parametrize("key", ["due", "parked", "history", "waiting", "owners", "dead", "letters", "fence", "epoch"])
async def test_foreign_data_fails_a_script_whole(server: RedisServer, key: str) -> None:
    """Whatever a key of ours holds: the error names it, and once it is deleted everything accepted goes on."""
    async with connect(server.url) as client:
        store = AlertStore(client, owner="me")
        name = getattr(store.keys, key)
        await client.lpush(name, "not ours")
        alerts = [make_alert(f"f{n}") for n in range(3)]
        accepted = await _errors_of(store, name, alerts)
        await client.delete(name)
        again = await store.accept(alerts, NIGHT)
        assert set(again) == ({"duplicate"} if accepted else {"new"})
        found = set()
        for _ in alerts:  # what was claimed in vain comes back each alone
            records, _ = await store.claim_due(NIGHT + 20 * SECOND, 10)
            found |= {record.id for record in records}
        assert found == {alert.id for alert in alerts}


async def _errors_of(store: AlertStore, name: str, alerts: list[Alert]) -> bool:
    """Whether the alerts were accepted though `name` holds what is not ours. Every error must name it."""
    errors: list[str] = []
    accepted = False
    for step in ("accept", "beat", "claim_due", "backlog"):
        try:
            if step == "accept":
                await store.accept(alerts, NIGHT)
                accepted = True
            elif step == "claim_due":
                await store.claim_due(NIGHT, 10)
            else:
                await getattr(store, step)(NIGHT)
        except StoreUnavailable as error:
            errors.append(str(error))
    assert all(f"WRONGTYPE {name} holds a list that is not ours" in error for error in errors)
    assert errors or name.endswith("fence")
    return accepted


async def test_foreign_data_at_a_key_of_many_fails_what_needs_it_and_loses_nothing(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client, owner="me")
        await store.accept([make_alert()], NIGHT)

        @asynccontextmanager
        async def foreign(key: str) -> AsyncIterator[None]:
            await client.delete(key)
            await client.setrange(key, 0, "not ours")
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                yield
            await client.delete(key)

        async with foreign(store.keys.leases + "me"):
            await store.claim_due(NIGHT, 10)
        [record], _ = await store.claim_due(NIGHT, 10)
        threshold = Threshold("rule", 60 * SECOND)
        for part in ("", ":answers", ":given"):
            async with foreign(store.keys.count + "rule" + part):
                await store.count(record, [threshold], NIGHT)
        assert await store.count(record, [threshold], NIGHT) == [1]
        await store.judged([_judged(record, ("pagerduty", 1, "k" * 32, "shared"))], NIGHT)
        limited_as = sha256(b"k" * 32).hexdigest()[:16]
        async with foreign(store.keys.calls + limited_as):
            await store.claim_sends(NIGHT, 10, 110)
        [claim], _ = await store.claim_sends(NIGHT, 10, 110)
        told = claim.record.told_of("pagerduty")
        async with foreign(f"{store.keys.members}pagerduty:shared"):
            await store.join_incident(claim.record, told)
        await store.join_incident(claim.record, told)
        async with foreign(f"{store.keys.members}pagerduty:shared"):
            await store.leave_incident(claim.record, told)
        assert await store.settle(_delivered(claim), NIGHT)


async def test_one_record_that_is_not_ours_fails_alone(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client)
        await client.set(store.keys.alert + make_alert("bad").id, "not ours")
        good, bad = await asyncio.gather(
            store.accept([make_alert("good")], NIGHT), store.accept([make_alert("bad")], NIGHT), return_exceptions=True
        )
        assert good == ["new"]
        assert isinstance(bad, StoreUnavailable)
        assert "bad" in str(bad)
        [record], _ = await store.claim_due(NIGHT, 10)
        assert record.id == make_alert("good").id


async def test_another_epoch_raises_the_alarm(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client)
        await store.beat(NIGHT)
        await store.beat(NIGHT + SECOND)
        assert await store.record("alertrouter:state-lost") is None
        await client.flushall()
        await store.beat(NIGHT + 2 * SECOND)
        record = await store.record("alertrouter:state-lost")
        assert record is not None
        assert "lost its state" in store.warnings()[0]
        await AlertStore(client).beat(NIGHT + 3 * SECOND)
        await store.beat(NIGHT + 4 * SECOND)
        assert (await store.record("alertrouter:state-lost")).count == 1  # type: ignore[union-attr]
        await store.beat(NIGHT + 25 * 3600 * SECOND)
        assert store.warnings() == []


async def test_an_alarm_that_cannot_be_stored_is_raised_later(server: RedisServer) -> None:
    async with connect(server.url) as client:
        store = AlertStore(client)
        await store.beat(NIGHT)
        await client.flushall()
        await client.lpush(store.keys.due, "not ours")
        with pytest.raises(StoreUnavailable):
            await store.beat(NIGHT + SECOND)
        await client.delete(store.keys.due)
        await store.beat(NIGHT + 2 * SECOND)
        assert await store.record("alertrouter:state-lost") is not None


def test_a_connection_that_is_reset_is_lost_under_uvloop_too(tmp_path: Path) -> None:
    """Its transports raise a RuntimeError of their own for that."""
    seen: Counter[str] = Counter()

    async def main() -> None:
        async with (
            RedisServer(program("redis-server"), tmp_path / "redis") as server,
            FaultProxy(f"127.0.0.1:{server.port}") as proxy,
            connect(f"redis://{proxy.address}/0") as client,
        ):

            async def ping() -> None:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    seen["lost"] += 1
                else:
                    seen["answered"] += 1

            for number in range(20):
                if number % 2:
                    proxy.reset_all()
                else:
                    await proxy.heal()
                await asyncio.gather(*(ping() for _ in range(30)))
            await proxy.heal()

    uvloop.run(main())
    assert seen["answered"] >= 300, "it finds back each time"
    assert seen["lost"] > 0
