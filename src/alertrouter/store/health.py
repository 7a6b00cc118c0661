"""How Redis is set up, looked at every minute: what could lose alerts, and the line of redis.conf that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from alertrouter.errors import StoreUnavailable

#: Shares of maxmemory. Past the second, a storm may fill what is left before anybody reads this.
_HALF_FULL: Final = 0.5
_NEARLY_FULL: Final = 0.8
#: Scripts say what they may do with a `#!lua` line, which older ones refuse.
_OLDEST: Final = (7, 0)

_log = structlog.get_logger()


def find_faults(info: Mapping[str, Any], appendfsync: str | None) -> dict[str, str]:
    """What is wrong, by a name that stays the same while it lasts, each with what to do.

    info:         the answer to INFO, as redis-py parses it.
    appendfsync:  the setting; None where it may not be asked for: then nothing is said about it.
    """
    faults = {}
    version = str(info.get("redis_version", ""))
    if version and _numbers(version) < _OLDEST:
        faults["version"] = (
            f"Redis is version {version}, alertrouter needs Redis 7.0 or later, or Valkey; install it, or point "
            "ALERTROUTER_REDIS_URL at one"
        )
    if info.get("loading"):
        faults["loading"] = "Redis is loading its data and accepts nothing until it is done; wait, it ends by itself"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults["eviction"] = (
            f"Redis may evict accepted alerts (maxmemory-policy is {policy}); "
            "put `maxmemory-policy noeviction` in redis.conf"
        )
    if not info.get("aof_enabled", 1):
        faults["aof"] = (
            "Redis loses accepted alerts when it restarts (appendonly is no); "
            "put `appendonly yes` and `appendfsync always` in redis.conf"
        )
    elif appendfsync not in (None, "always"):
        faults["fsync"] = (
            f"Redis loses {'the last second' if appendfsync == 'everysec' else 'what was not flushed'} when its machine "
            f"dies (appendfsync is {appendfsync}); put `appendfsync always` in redis.conf"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        faults["aof_write"] = "Redis cannot write its append-only file; look at its disk: it is full or failing"
    faults.update(_fullness(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))))
    return faults


def _fullness(used: int, most: int) -> dict[str, str]:
    if not most or used <= _HALF_FULL * most:
        return {}
    share = f"Redis has used {used * 100 // most} % of its memory"
    larger = f"put a larger `maxmemory` than {most} in redis.conf"
    if used <= _NEARLY_FULL * most:
        return {"memory": f"{share}; {larger}"}
    return {"memory_short": f"{share}; at 100 % it accepts nothing; {larger} now"}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


class Health:
    """The faults of one Redis as last seen."""

    def __init__(self, client: Redis) -> None:
        # typed by redis-py as text or bytes, decoded or not
        self._client = cast(Any, client)
        self._faults: Mapping[str, str] = {}

    @property
    def warnings(self) -> list[str]:
        """What is wrong and what to do, one sentence for each fault."""
        return list(self._faults.values())

    async def look(self) -> None:
        """Ask Redis, and say in the log what is newly wrong. Raises StoreUnavailable; then the last look stands."""
        try:
            faults = find_faults(await self._client.info(), await self._appendfsync())
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        for name in faults.keys() - self._faults.keys():
            _log.warning("Redis is not as it should be", fault=name, what=faults[name])
        for name in self._faults.keys() - faults.keys():
            _log.info("Redis is as it should be again", fault=name)
        self._faults = faults

    async def _appendfsync(self) -> str | None:
        try:
            settings = await self._client.config_get("appendfsync")
        except ResponseError:  # managed Redis forbids CONFIG
            return None
        return cast("str | None", settings.get("appendfsync"))
