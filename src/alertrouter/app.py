"""Builds each client once, joins the rooms, starts and stops them in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import time
from types import MappingProxyType
from typing import Any

import structlog
from aiohttp import web
from yarl import URL

from alertrouter import __version__, telemetry
from alertrouter.alarms import SELF_DESTINATION, alarm
from alertrouter.alert import PAGERDUTY, Alert, Severity, Status
from alertrouter.credentials import SourceCredentials, everybody, guard, names_credentials
from alertrouter.delivery.bounds import Bounds
from alertrouter.delivery.canary import Canary
from alertrouter.delivery.changes import Changes
from alertrouter.delivery.dead_letters import DeadLetters, LetterKeeper, Unreadable
from alertrouter.delivery.explaining import closest, explain_record
from alertrouter.delivery.fallback import DirectPath
from alertrouter.delivery.flapping import FlappingLimit
from alertrouter.delivery.heartbeats import Heartbeats
from alertrouter.delivery.intake import Intake
from alertrouter.delivery.journal import Journal
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.outage import Outage, Reachability
from alertrouter.delivery.page_testing import PageTests
from alertrouter.delivery.reconcile import Plan
from alertrouter.delivery.senders import Senders
from alertrouter.delivery.shadow import Shadow
from alertrouter.delivery.silence import AutoResolve
from alertrouter.delivery.silencing import Silences
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.outgoing import Outgoing, outgoing
from alertrouter.destinations.pagerduty import FALLBACK, PagerDutyClient
from alertrouter.destinations.second_channel import mail, signed_webhook
from alertrouter.errors import RulesInvalid, SettingsInvalid, StoreUnavailable
from alertrouter.history.writing import HistoryFiles, HistoryWriter
from alertrouter.limits import Limits
from alertrouter.record import Record
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Decision, KeyReference, Ruleset
from alertrouter.rules.revision import git_revision
from alertrouter.rules.silences import Silence
from alertrouter.rules.watch import changes, look
from alertrouter.settings import Settings, read_secret
from alertrouter.sources import SENDERS, Parser, find_parser
from alertrouter.sources.pagerduty import Change
from alertrouter.store.clock import RedisClock
from alertrouter.store.connect import connect
from alertrouter.store.embedded import EmbeddedRedis, own_directory
from alertrouter.store.health import Health
from alertrouter.store.store import AlertStore, Dedup
from alertrouter.web.api import Api
from alertrouter.web.body import Room, continue_when_read
from alertrouter.web.connections import Listener, check_parser, within_open_files
from alertrouter.web.dead_letters import DeadLettersApi
from alertrouter.web.enqueue import Enqueue
from alertrouter.web.headers import protect_readers
from alertrouter.web.on_call import OnCall
from alertrouter.web.operations import Operations
from alertrouter.web.sns import Sns, Topics
from alertrouter.web.webhooks import Webhooks

_LOOK_AT_REDIS_EVERY_S = 60.0
_TRIM_HISTORY_EVERY_S = 60.0
_LOOK_AT_BOUNDS_EVERY_S = 2.0
_LOOK_AGAIN_S = 2.0
_START_AGAIN_AFTER_S = 1.0
_END_REQUESTS_WITHIN_S = 5.0
_END_CHORES_WITHIN_S = 5.0
_SKEW_WORTH_SAYING_MS = 1000
_MOST_PROBLEMS_SHOWN = 20

#: What goes on for as long as the service runs.
Duty = Callable[[], Coroutine[Any, Any, None]]

_log = structlog.get_logger()


class Service:
    """The running service. Built by `running`; `url` is where it listens."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        store: AlertStore,
        pagerduty: PagerDutyClient,
        clock: RedisClock | Callable[[], int],
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._clock = clock
        self._redis_clock = clock if isinstance(clock, RedisClock) else None
        self._warned_of_skew = False
        self.store = store
        reachability = Reachability(pagerduty, clock)
        self._loaded = look(settings.rules)
        self._not_loaded: Sequence[str] = ()
        self.credentials = SourceCredentials(self._secret)
        self.silences = Silences(
            store, clock, self._silence, known=self._is_known, closest=self.closest, ahead=self._ahead
        )
        self.page_tests = PageTests(store, self.accept, lambda: self.rules, clock, self._ahead)
        self.rules = self._put_in_force(load_rules(settings.rules, now=self._time_of_day()))
        self.shadow = Shadow(store, self._ahead) if settings.shadow_rules else None
        self.history_writer = self._history_writer(settings)
        self.changes = Changes(
            store,
            pagerduty,
            lambda: self.rules,
            clock,
            calls_per_minute=settings.pagerduty_calls_per_minute,
            ahead=self._ahead,
        )
        self.worker = Worker(
            store,
            reachability,
            lambda: self.rules,
            clock,
            calls_per_minute=settings.pagerduty_calls_per_minute,
            max_in_flight=settings.max_in_flight,
            page_short=settings.page_short,
            held=lambda: not self._has_agreed() or self.intake.holds_sends() or self.silences.holds_sends(),
            on_away=lambda: self.intake.redis_failed(),
            on_judged=self._judged,
            auto_resolve=AutoResolve.from_setting(settings.auto_resolve_after),
            flapping=FlappingLimit.from_settings(settings.flapping_transitions, settings.flapping_within),
            ahead=self._ahead,
            keep_time=self.keep_time,
            changes=self.changes.of,
        )
        self.bounds = Bounds(store, clock, settings.max_pending, settings.dead_letters)
        direct = DirectPath(reachability, lambda: self.rules, clock, journal, self._ahead, self.changes.of)
        wake = self.worker.wake
        self.heartbeats = Heartbeats(
            store, lambda: self.rules, clock, wake, fail_open=settings.fail_open, ahead=self._ahead
        )
        self.senders = Senders(store, clock, wake)
        self._allowed = _allowed(settings)
        self._called = [(self._allowed, URL(settings.pagerduty_events_url))]
        self._blocked: Sequence[str] = ()
        self.canary = Canary(store, direct, clock, wake)
        self.outage = self._second_channel(settings, reachability)
        self.intake = Intake(
            store,
            direct,
            clock,
            fail_open=settings.fail_open,
            replicated=settings.redis_url is not None,
            refuses=self.bounds.refuses,
        )
        self.dead_letters = DeadLetters(store, clock, self.worker.wake, self._parser_of)
        self.unreadable = Unreadable(store, self.accept, clock)
        self.letter_keeper = LetterKeeper(
            store,
            self.unreadable,
            self.accept,
            clock,
            folder=settings.data_dir / "dead-letters",
            most=settings.dead_letters,
        )
        self.sns = Sns(
            self._topics_of,
            self._say,
            self._time_of_day,
            connector=self._allowed.connector,
            proxy_for=self._allowed.proxy_for,
        )
        self._reloading = asyncio.Lock()
        self.url = ""
        self.operations_url = ""
        self.embedded: EmbeddedRedis | None = None
        self.health: Health | None = None
        self.draining = False

    def _parser_of(self, source: str) -> Parser:
        """How the bodies of a sender are read by the rules in force. Raises BadPayload where there is no such sender."""
        return find_parser(source, self.rules.ruleset.custom)

    def _ahead(self) -> int:
        """How far our time is ahead of the time of day, in ms."""
        return self._redis_clock.ahead if self._redis_clock else 0

    def _time_of_day(self) -> int:
        return self._clock() - self._ahead()

    def _has_agreed(self) -> bool:
        """Whether our time is that of the other replicas: before, what they hold must not be taken for overdue."""
        return self._redis_clock is None or self._redis_clock.agreed

    async def keep_time(self) -> None:
        """Agree with the other replicas on the time, and judge windows again if the time of day was set."""
        clock = self._redis_clock
        if clock is None:
            return
        was_agreed = clock.agreed
        if await clock.keep(self.store):
            _log.warning("Redis' clock was set; timers go on as before", ahead_of_redis_ms=clock.ahead)
            self.worker.rejudge(refused=False)
        elif not was_agreed:
            self.worker.wake()
        telemetry.REDIS_CLOCK_SKEW.set(clock.skew / 1000)
        telemetry.CLOCK_AHEAD.set(clock.ahead / 1000)
        is_skewed = abs(clock.skew) > _SKEW_WORTH_SAYING_MS
        if is_skewed and not self._warned_of_skew:
            _log.warning("this machine's clock is off from Redis'", skew_ms=clock.skew)
        self._warned_of_skew = is_skewed

    async def accept(self, alerts: Sequence[Alert]) -> Sequence[StrEnum]:
        """Take `alerts` in and wake the worker. Raises StoreUnavailable, also while draining."""
        if self.draining:
            raise StoreUnavailable("shutting down")
        outcomes = await self.heartbeats.take(alerts, self.intake.accept)
        self.worker.wake()
        return outcomes

    async def take_change(self, change: Change) -> bool:
        """Take a change event in; False where there is no room. Raises StoreUnavailable, also while draining."""
        if self.draining:
            raise StoreUnavailable("shutting down")
        return await self.changes.accept(change)

    async def reload(self) -> Ruleset:
        """Load the rules anew and put them in force, or raise RulesInvalid and keep the old ones."""
        async with self._reloading:  # one after the other, or an older reading could come into force last
            return await self._reload()

    async def _reload(self) -> Ruleset:
        try:
            # thousands of rules take seconds to load, and alerts keep coming
            ruleset = await asyncio.to_thread(
                load_rules, self._settings.rules, self.rules.ruleset, now=self._time_of_day()
            )
        except RulesInvalid as error:
            self._not_loaded = error.problems
            telemetry.RULES_LAST_RELOAD_SUCCESSFUL.set(0)
            _log.error("rules not reloaded; the old ones stay in force", errors=error.problems)
            await self._say_of_rules(error.problems)
            raise
        await self._say_of_rules(())
        before, self.rules = self.rules, self._put_in_force(ruleset)
        changed = ruleset.version != before.ruleset.version
        if changed:
            _log.info("rules reloaded", version=ruleset.version)
        if changed or self.rules.routing_keys != before.routing_keys:
            self.worker.rejudge()
        return ruleset

    async def _say_of_rules(self, problems: Sequence[str]) -> None:
        """Raise the alarm that the rules in the files are refused, or end it where it was raised."""
        refused = alarm(
            "rules-refused",
            "the changed rules are faulty; the old ones stay in force" if problems else "the rules are sound",
            severity=Severity.ERROR,
            firing=bool(problems),
            details={
                "problems": list(problems[:_MOST_PROBLEMS_SHOWN]),
                "what to do": "Mend them. This ends by itself.",
            },
        )
        try:
            await self._say(refused)
        except StoreUnavailable as error:
            _log.warning("the alarm about the rules waits for the next reload", error=str(error))

    async def _say(self, about: Alert) -> None:
        """Raise an alarm, or end it where it was raised. Raises StoreUnavailable."""
        if about.status is Status.RESOLVED and await self.store.record(about.id) is None:
            return
        await self.store.accept([about], self._clock())
        self.worker.wake()

    def _topics_of(self, source: str) -> Topics | None:
        """The SNS topics of a source: its own, else its sender's."""
        configured = self.rules.ruleset.topics
        found = configured.get(source) or configured.get(source.partition("/")[0])
        return Topics(frozenset(found.topics), found.certificates) if found else None

    async def reloaded(self) -> Mapping[str, object]:
        """Reload, and say what is in force now."""
        ruleset = await self.reload()
        quarantined = [{"service": service, "errors": list(errors)} for service, errors in ruleset.quarantined.items()]
        return {"version": ruleset.version, "quarantined": quarantined}

    def _put_in_force(self, ruleset: Ruleset) -> ActiveRules:
        """The rules with the keys behind their destinations; metrics and log say which they are."""
        self._not_loaded = ()
        telemetry.RULES_LAST_RELOAD_SUCCESSFUL.set(1)
        telemetry.RULES_LAST_RELOAD_TIMESTAMP.set(time())
        telemetry.RULES_INFO.clear()
        telemetry.RULES_INFO.labels(ruleset.version, git_revision(self._settings.rules)).set(1)
        telemetry.RULES_QUARANTINED.set(len(ruleset.quarantined))
        for service, errors in ruleset.quarantined.items():
            _log.error("a service's file is faulty and set aside", service=service, errors=errors)
        self.credentials.put_in_force(ruleset.credentials)
        return _active(replace(ruleset, silences=self.silences.in_force), self._settings, self._environ)

    def _secret(self, place: KeyReference) -> str | None:
        return read_secret(self._environ, env=place.env, file=place.file)

    def _silence(self, silences: tuple[Silence, ...]) -> None:
        """Put these silences in force. What one kept back that was ended before its time is judged again now."""
        before, now = self.rules.ruleset.silences, self._time_of_day()
        self.rules = replace(self.rules, ruleset=replace(self.rules.ruleset, silences=silences))
        if self.shadow is not None and self.shadow.ruleset is not None:
            self.shadow.put_in_force(replace(self.shadow.ruleset, silences=silences))
        kept = {silence.id for silence in silences}
        if any(silence.id not in kept and silence.ends_at > now for silence in before):
            self.worker.rejudge(refused=False)

    async def _is_known(self, alert: str) -> bool:
        """Whether an alert of that id was heard, or some share the incident of that key."""
        return await self.store.record(alert) is not None or bool(
            await self.store.sharing(alert, self.rules.routing_keys)
        )

    def _judged(self, record: Record, decision: Decision, plan: Plan, now: int) -> None:
        self.canary.judged()
        if self.shadow is not None:
            self.shadow.heard(record, decision, plan, now)

    def _second_channel(self, settings: Settings, reachability: Reachability) -> Outage | None:
        """What tells people of PagerDuty's outages by the channels that are set. Raises SettingsInvalid."""
        url, secret = settings.second_channel_webhook_url, settings.second_channel_webhook_secret
        smtp_url = settings.second_channel_smtp_url
        if url is None and smtp_url is None:
            return None
        webhook = server = None
        if url is not None:
            secret_text = secret.get_secret_value() if secret else ""
            webhook = signed_webhook(url.get_secret_value(), secret_text, self._allowed)
            self._called.append((webhook.allowed, URL(webhook.url)))
        if smtp_url is not None:
            sender, recipients = settings.second_channel_mail_from, settings.second_channel_mail_to
            server = mail(smtp_url.get_secret_value(), sender, recipients, self._allowed)
            self._called.append((server.allowed, server.url))
        return Outage(
            self.store,
            reachability,
            lambda: self.rules,
            self._clock,
            webhook,
            server,
            after_ms=settings.second_channel_after,
            instance=settings.instance,
            ahead=self._ahead,
        )

    def _history_writer(self, settings: Settings) -> HistoryWriter | None:
        if settings.history_path is None:
            return None
        store = self.store
        files = HistoryFiles(settings.history_path, retention_ms=settings.retention)
        return HistoryWriter(
            files, lambda first, most: store.history_entries(first, "+", most), store.history_extent, self._clock
        )

    async def keep_shadow_rules(self) -> None:
        """Load the shadow rules, and again whenever their files change."""
        directory, shadow = self._settings.shadow_rules, self.shadow
        assert directory is not None
        assert shadow is not None
        seen = look(directory)
        await self._load_shadow(directory, shadow)
        async for _ in changes(directory, seen):
            await self._load_shadow(directory, shadow)

    async def _load_shadow(self, directory: Path, shadow: Shadow) -> None:
        try:
            ruleset = await asyncio.to_thread(load_rules, directory, shadow.ruleset, now=self._time_of_day())
            shadow.put_in_force(replace(ruleset, silences=self.silences.in_force))
        except RulesInvalid as error:
            shadow.refuse(error.problems)

    def shadow_summary(self) -> Mapping[str, object] | None:
        """What the shadow rules would have done otherwise; None where there are none."""
        return {"rules": str(self._settings.shadow_rules), **self.shadow.summary()} if self.shadow else None

    async def explain(self, alert_id: str) -> dict[str, Any] | None:
        """All about one alert, by the rules in force. None where nothing is on record. Raises StoreUnavailable.

        An Events API v2 event is also found under the client's own dedup_key, which is the one that PagerDuty shows.
        """
        explained = await self._explain(alert_id)
        if explained is None and (told := await self.store.told_under(alert_id, self.rules.routing_keys.values())):
            explained = await self._explain(told)
        return explained

    async def _explain(self, alert_id: str) -> dict[str, Any] | None:
        return await explain_record(
            alert_id,
            self.store,
            self.rules.ruleset,
            self._clock(),
            ahead=self._ahead(),
            auto_resolve=AutoResolve.from_setting(self._settings.auto_resolve_after),
        )

    async def closest(self, asked: str) -> Sequence[str]:
        """Ids of alerts that may be meant: they share the incident of that name, or are called nearly so."""
        sharing = await self.store.sharing(asked, self.rules.routing_keys)
        return sharing[:5] or await asyncio.to_thread(closest, asked, await self.store.some_ids())

    async def watch_bounds(self) -> None:
        """See how full everything is."""
        while True:
            with suppress(StoreUnavailable):  # said by /-/ready
                await self.bounds.look()
            await asyncio.sleep(_LOOK_AT_BOUNDS_EVERY_S)

    async def keep_history_short(self) -> None:
        """Let go of what is older than the retention, and of what nobody was told of and nobody heard again."""
        while True:
            with suppress(StoreUnavailable):
                await self.store.trim_history(self._clock() - self._settings.retention)
                await self.store.sweep(self._clock())
            await asyncio.sleep(_TRIM_HISTORY_EVERY_S)

    async def look_at_outgoing(self) -> None:
        """See whether what is to be called may be. What a name says may change: each call looks again."""
        found = [await allowed.blocked(url) for allowed, url in self._called]
        self._blocked = [f"what is set to be called cannot be: {why}" for why in found if why]
        for why in self._blocked:
            _log.error(why)

    def warnings(self) -> Sequence[str]:
        """What is wrong though alerts are accepted, and what to do."""
        return [
            *self.intake.warnings(),
            *self.store.warnings(),
            *self.letter_keeper.warnings(),
            *self.bounds.warnings(),
            *(self.health.warnings if self.health is not None else ()),
            *self.heartbeats.warnings(),
            *self.senders.warnings(),
            *self._blocked,
            *(self.outage.warnings() if self.outage is not None else ()),
            *(
                [
                    f"the history cannot be written to ALERTROUTER_HISTORY_PATH ({self.history_writer.problem}); make it "
                    "writable, or its disk larger: what Redis lets go of meanwhile is in no file"
                ]
                if self.history_writer and self.history_writer.problem
                else ()
            ),
            *self.silences.warnings(),
            *(
                [
                    f"the rules in {self._settings.rules} are faulty, and the ones loaded before stay in force "
                    f"({self._not_loaded[0]}); mend them, `alertrouter check {self._settings.rules}` lists all"
                ]
                if self._not_loaded
                else ()
            ),
            *(
                [
                    f"the shadow rules in {self._settings.shadow_rules} are faulty ({self.shadow.problems[0]}); mend them, "
                    f"`alertrouter check {self._settings.shadow_rules}` lists all"
                ]
                if self.shadow and self.shadow.problems
                else ()
            ),
            *(
                f"the routing key of {service} is not there, and its alerts go to the default key; set {name} and "
                "restart alertrouter"
                for service, name in self.rules.missing_keys.items()
            ),
            *(
                f"the routing key of the integration {name} is not there, and its events are refused; set {where} and "
                "restart alertrouter"
                for name, where in self.rules.missing_integrations.items()
            ),
            *self._about_clock(),
            *self.credentials.warnings(),
            *(
                f"`sources` in alertrouter.yaml names {source}, but there is no sender {source.partition('/')[0]}: "
                "its credentials guard nothing; write the sender as in its /webhooks/ address"
                for source in self.credentials.in_force
                if source.partition("/")[0] not in SENDERS
            ),
            *(
                f"services/{service}.yaml is faulty and set aside ({errors[0]}); mend it, `alertrouter check` lists all"
                for service, errors in self.rules.ruleset.quarantined.items()
            ),
        ]

    def _about_clock(self) -> Sequence[str]:
        skew = self._redis_clock.skew if self._redis_clock else 0
        if abs(skew) <= _SKEW_WORTH_SAYING_MS:
            return ()
        return [
            f"this machine's clock is {abs(skew) / 1000:.1f} s {'ahead of' if skew > 0 else 'behind'} Redis'; alertrouter "
            "goes by Redis' clock, log lines by this one; look at NTP on both"
        ]

    async def keep_rules(self) -> None:
        """Reload whenever the files change."""
        await self._say_of_rules(())  # an earlier process may have found them faulty, and these are sound
        async for _ in changes(self._settings.rules, self._loaded):
            with suppress(RulesInvalid):  # said, counted, and shown by the metric
                await self.reload()

    async def backlog(self) -> dict[str, int]:
        """Sizes of the queues now. Raises StoreUnavailable."""
        return await self.store.backlog(self._clock())

    async def missing(self) -> Sequence[str]:
        """What keeps the service from accepting alerts."""
        if self.draining:
            return ["shutting down"]
        missing = await self.intake.missing()
        if missing:
            what_to_do = "check ALERTROUTER_REDIS_URL" if self.embedded is None else "the embedded one is started again"
            return [f"{missing}; {what_to_do}"]
        return []

    def routes(self) -> web.Application:
        """The HTTP application, but for health and metrics where these have a listener of their own."""
        settings = self._settings
        unproven = Room(settings.limits.unproven_bytes)
        webhooks = Webhooks(
            self.accept,
            self.unreadable.keep,
            settings.max_body_bytes,
            gates={"cloudwatch": self.sns.admit},
            everybody=everybody(settings),
            own=lambda: self.credentials.in_force,
            now=self._time_of_day,
            on_taken=self.senders.taken,
            on_refused=self.senders.refused,
            on_oversized=self.unreadable.oversized,
            unproven=unproven,
            parser_of=self._parser_of,
        )
        enqueue = Enqueue(
            self.accept,
            self.unreadable.keep,
            self.take_change,
            lambda key: self.rules.integration_of(key),
            unproven=unproven,
            on_taken=self.senders.taken,
            on_refused=self.senders.refused,
        )
        operations = self._operations()
        api = Api(
            explain=self.explain,
            closest=self.closest,
            history=self.store.history_entries,
            shadow=self.shadow_summary,
        )
        letters = DeadLettersApi(self.dead_letters, lambda: self.letter_keeper.spilled)
        on_call = OnCall(
            add=self.silences.add,
            end=self.silences.end,
            listed=self.silences.listed,
            test=self.page_tests.begin,
            resolve=self.page_tests.resolve,
        )
        application = web.Application(client_max_size=settings.max_body_bytes, middlewares=[guard(settings).middleware])
        application.on_response_prepare.append(protect_readers)
        application.add_routes(
            [
                _post("/webhooks/{sender}", webhooks.post),
                _post("/webhooks/{sender}/{name}", webhooks.post),
                _post("/v2/enqueue", enqueue.post),
                _post("/v2/change/enqueue", enqueue.post_change),
                _post("/-/reload", operations.reload),
                web.get("/api/v1/history", api.history),
                web.get("/api/v1/shadow", api.shadow),
                web.get("/api/v1/dead-letters", letters.list),
                web.get("/api/v1/dead-letters/{letter}", letters.show),
                _post("/api/v1/dead-letters", letters.post),
                web.get("/api/v1/silences", on_call.list_silences),
                _post("/api/v1/silences", on_call.add_silence),
                web.delete("/api/v1/silences/{id}", on_call.end_silence),
                _post("/api/v1/page-tests", on_call.begin_test),
                _post(r"/api/v1/page-tests/{id:[\s\S]+}/resolve", on_call.resolve_test),
                web.get(r"/api/v1/alerts/{dedup_key:[\s\S]+}", api.alert),
            ]
        )
        if not settings.operations_listen:
            application.add_routes(_watching(operations))
        return application

    def operations_routes(self) -> web.Application:
        """Health and metrics alone."""
        application = web.Application(middlewares=[guard(self._settings).middleware])
        application.on_response_prepare.append(protect_readers)
        application.add_routes(_watching(self._operations()))
        return application

    def _operations(self) -> Operations:
        return Operations(
            missing=self.missing,
            warnings=self.warnings,
            stuck_for=self.worker.stuck_for,
            backlog=self.backlog,
            reload=self.reloaded,
        )


@asynccontextmanager
async def running(
    settings: Settings, environ: Mapping[str, str], clock: Callable[[], int] | None = None
) -> AsyncIterator[Service]:
    """The service, listening and working until the block is left; then it drains.

    `clock` (ms since the epoch) is for those who own time. Raises SettingsInvalid and RulesInvalid at start.
    """
    operations_address = settings.operations_address
    settings.check_exposure(by_source=settings.is_exposed and names_credentials(settings.rules))
    check_parser()
    if settings.pagerduty_routing_key is None:
        raise SettingsInvalid(
            "no PagerDuty routing key: set ALERTROUTER_PAGERDUTY_ROUTING_KEY (or ALERTROUTER_PAGERDUTY_ROUTING_KEY_FILE) "
            "to a service's Events API v2 integration key, or try with `alertrouter serve --sandbox`"
        )
    telemetry.BUILD_INFO.labels(__version__).set(1)
    async with AsyncExitStack() as stack:
        url, embedded = await _redis(settings, stack)
        client = connect(url, instance=settings.instance)
        stack.push_async_callback(client.aclose)
        store = AlertStore(
            client,
            instance=settings.instance,
            dedup=Dedup(settings.dedup_window, settings.resend_after, settings.dedup_mode),
            wait_replicas=settings.redis_wait_replicas,
            history_length=settings.history_length,
        )
        if embedded is not None:
            with suppress(StoreUnavailable):  # then they end by themselves
                await store.void_leases()  # our lock on the data directory proves their owners dead
        redis_clock = RedisClock()
        with suppress(StoreUnavailable):  # said by /-/ready; it may come later
            await redis_clock.keep(store)
        allowed = _allowed(settings)
        pagerduty = PagerDutyClient(settings.pagerduty_events_url, connections=settings.max_in_flight, allowed=allowed)
        stack.push_async_callback(pagerduty.close)
        journal = Journal(settings.data_dir / "journal", store.owner)
        stack.callback(journal.close)
        service = Service(settings, environ, store, pagerduty, clock or redis_clock, journal)
        service.embedded = embedded

        limits = within_open_files(settings.limits, settings.max_in_flight)
        listeners = []
        if operations_address is not None:
            # health and metrics are told until the end of the drain
            listener, _, service.operations_url = await _listen(
                stack, service.operations_routes(), limits, operations_address, "ALERTROUTER_OPERATIONS_LISTEN"
            )
            listeners.append(listener)
        listener, site, service.url = await _listen(
            stack, service.routes(), limits, settings.address, "ALERTROUTER_LISTEN"
        )
        listeners.append(listener)
        with suppress(StoreUnavailable):  # before anything is judged; else as soon as Redis answers
            await service.silences.refresh()
        working = asyncio.create_task(_keep_going("working", service.worker.run))
        duties: dict[str, Duty] = {
            "watching the rules": service.keep_rules,
            "watching Redis": service.intake.watch,
            "trimming the history": service.keep_history_short,
            "keeping dead letters within bounds": service.letter_keeper.run,
            "looking for silences": service.silences.watch,
            "resolving test pages": service.page_tests.watch,
            "watching the bounds": service.watch_bounds,
            "watching heartbeats": service.heartbeats.watch,
            "watching senders": service.senders.watch,
            "watching credentials": service.credentials.watch,
            **{f"watching connections {n}": each.connections.watch for n, each in enumerate(listeners)},
            "looking at what is called": service.look_at_outgoing,
            "forwarding changes": service.changes.watch,
            "sending the canary": service.canary.watch,
        }
        if service.outage is not None:
            duties["watching PagerDuty"] = service.outage.watch
        if service.history_writer is not None:
            duties["writing the history"] = service.history_writer.run
        if service.shadow is not None:
            duties["watching the shadow rules"] = service.keep_shadow_rules
            duties["judging by the shadow rules"] = service.shadow.run
        if embedded is not None:
            duties["keeping the embedded Redis up"] = embedded.keep_up
        else:
            service.health = health = Health(client)
            duties["looking at Redis' settings"] = lambda: _keep_looking_at(health)
        chores = [asyncio.create_task(_keep_going(what, duty)) for what, duty in duties.items()]
        service.worker.rejudge()  # the rules and keys may have changed while we were away
        try:
            yield service
        finally:
            service.draining = True
            await site.stop()
            service.worker.stop(settings.drain_timeout / 1000)
            await working
            for chore in chores:
                chore.cancel()
            await asyncio.wait(chores, timeout=_END_CHORES_WITHIN_S)


def _allowed(settings: Settings) -> Outgoing:
    proxy = settings.outgoing_proxy
    return outgoing(settings.outgoing_hosts, proxy.get_secret_value() if proxy else None)


async def _redis(settings: Settings, stack: AsyncExitStack) -> tuple[str, EmbeddedRedis | None]:
    """Address of the Redis to use, and the embedded one if it is ours."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value(), None
    if settings.redis_wait_replicas:
        raise SettingsInvalid("ALERTROUTER_REDIS_WAIT_REPLICAS: the embedded Redis has none; set ALERTROUTER_REDIS_URL")
    embedded = await own_directory(settings.data_dir)
    stack.push_async_callback(embedded.stop)
    try:
        await embedded.start()
    except StoreUnavailable as error:
        if not settings.fail_open:
            raise
        _log.error("the embedded Redis does not start; what cannot wait goes straight to PagerDuty", error=str(error))
    return embedded.url, embedded


async def _listen(
    stack: AsyncExitStack, application: web.Application, limits: Limits, address: tuple[str, int], variable: str
) -> tuple[Listener, web.TCPSite, str]:
    """Serve the application until the stack is left. Raises SettingsInvalid, naming the `variable` of the address."""
    listener = Listener(application, limits, shutdown_timeout=_END_REQUESTS_WITHIN_S)
    await listener.setup()
    stack.push_async_callback(listener.cleanup)
    host, port = address
    site = web.TCPSite(listener, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise SettingsInvalid(f"cannot listen on {host}:{port}: {error.strerror}; set {variable}") from error
    bound = listener.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return listener, site, f"http://{shown}:{bound[1]}"


_post = partial(web.post, expect_handler=continue_when_read)


def _watching(operations: Operations) -> Sequence[web.RouteDef]:
    """What orchestrators and Prometheus ask for."""
    return [
        web.get("/-/healthy", operations.healthy),
        web.get("/-/ready", operations.ready),
        web.get("/metrics", operations.metrics),
    ]


async def _keep_going(what: str, duty: Duty) -> None:
    """Do it, and again should a fault of ours end it: a router that accepts must also send, and find back to Redis."""
    while True:
        run = asyncio.create_task(duty())
        try:
            await asyncio.wait([run])
        finally:
            run.cancel()
            await asyncio.wait([run])
        if run.cancelled() or (error := run.exception()) is None:
            return
        _log.error("a part of this program failed; starting it again", part=what, exc_info=error)
        await asyncio.sleep(_START_AGAIN_AFTER_S)


async def _keep_looking_at(health: Health) -> None:
    while True:
        try:
            await health.look()
        except StoreUnavailable:  # said by /-/ready; what it is like is asked once it is there
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            await asyncio.sleep(_LOOK_AT_REDIS_EVERY_S)


def _active(ruleset: Ruleset, settings: Settings, environ: Mapping[str, str]) -> ActiveRules:
    """The rules with the literal key behind every destination they name."""
    assert settings.pagerduty_routing_key is not None
    default = settings.pagerduty_routing_key.get_secret_value()
    keys, missing = {DEFAULT_DESTINATION: default}, {}
    limits: dict[str, list[int]] = {}
    if settings.pagerduty_self_routing_key is not None:
        keys[SELF_DESTINATION] = settings.pagerduty_self_routing_key.get_secret_value()
    if settings.pagerduty_fallback_routing_key is not None:
        keys[FALLBACK] = settings.pagerduty_fallback_routing_key.get_secret_value()
    for service in ruleset.services.values():
        if service.routing_key is None:
            continue
        key = read_secret(environ, env=service.routing_key.env, file=service.routing_key.file)
        if key is None:
            _log.warning("a service's routing key is not there; its alerts go to the default key", service=service.name)
            missing[service.name] = service.routing_key.shown
        keys[f"pagerduty:{service.name}"] = key or default
        if key is not None and service.calls_per_minute is not None:
            # services that share a key share its limit: the strictest that any of them names; 0 is none
            limits.setdefault(key, []).append(service.calls_per_minute)
    own_limits = {key: min(filter(None, named), default=0) for key, named in limits.items()}
    posting, not_there = _posting(ruleset, keys, environ)
    return ActiveRules(
        ruleset,
        MappingProxyType(keys),
        MappingProxyType(missing),
        MappingProxyType(own_limits),
        MappingProxyType(not_there),
        tuple((sha256(key.encode()).digest(), source) for key, source in posting.items()),
    )


def _posting(
    ruleset: Ruleset, keys: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The sender that each literal routing key stands for, and where those of integrations are that are not there.

    keys:  those that events go out by, by destination. Whoever posts with one of them means its service.
    """
    posting = {keys[DEFAULT_DESTINATION]: PAGERDUTY}
    for name in ruleset.services:
        if own := keys.get(f"{PAGERDUTY}:{name}"):
            posting.setdefault(own, f"{PAGERDUTY}/{name}")
    not_there = {}
    for integration in ruleset.integrations.values():
        place = integration.routing_key
        key = read_secret(environ, env=place.env, file=place.file)
        if key is None:
            _log.warning("an integration's routing key is not there", integration=integration.name)
            not_there[integration.name] = place.shown
        else:
            posting.setdefault(key, f"{PAGERDUTY}/{integration.name}")
    return posting, not_there
