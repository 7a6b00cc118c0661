-- claim_sends: lease sends that wait, best rank first, within each destination's call limit.
-- KEYS  1 waiting  2 this worker's leases  3 fence  4 owners  5 due
-- ARGV  1 now  2 lease (ms)  3 at most  4 calls allowed per routing key in 60 s (0 = no limit)  5 where to start
--       6 prefix of records  7 prefix of wait queues  8 prefix of calls  9 owner
-- Returns {when the next call is allowed (ms, '' if nothing waits for one), then per send:
--       {destination, fence, lease_until, the record's id, its hash, flat}}.
local now, lease, most, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local record_prefix, wait_prefix, calls_prefix = ARGV[6], ARGV[7], ARGV[8]
local lease_until = string.format('%.0f', now + lease)
local minute = 60000

-- leases are looked for by their owner: one that nobody knows would keep them for ever
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[9])
local destinations = redis.call('SMEMBERS', KEYS[1])
table.sort(destinations)
local claimed, next_call = {''}, nil
-- slots are shared out, so that one destination's backlog does not starve another; each call starts elsewhere
for n = 1, #destinations do
  local destination = destinations[(n + tonumber(ARGV[5])) % #destinations + 1]
  local queue = wait_prefix .. destination
  local take = math.ceil(most / (#destinations - n + 1))
  -- PagerDuty counts by routing key, and two destinations may share one
  local first = redis.call('ZRANGE', queue, 0, 0)[1]
  local limited_as = first and redis.call('HGET', record_prefix .. first, 't:' .. destination .. ':limited_as') or ''
  local calls = calls_prefix .. limited_as
  if limit > 0 then
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', string.format('%.0f', now - minute))
    local free = limit - redis.call('ZCARD', calls)
    if free <= 0 then
      local allowed = tonumber(redis.call('ZRANGE', calls, 0, 0, 'WITHSCORES')[2]) + minute
      if not next_call or allowed < next_call then next_call = allowed end
    end
    take = math.min(take, free)
  end
  if take > 0 then
    for _, id in ipairs(redis.call('ZRANGE', queue, 0, take - 1)) do
      local key = record_prefix .. id
      local leased_until = redis.call('HGET', key, 't:' .. destination .. ':lease_until')
      if leased_until and tonumber(leased_until) > now then
        redis.call('ZADD', KEYS[5], 'LT', leased_until, id) -- one send at a time: after that one it is judged again
        redis.call('ZREM', queue, id)
      elseif redis.call('EXISTS', key) == 1 then
        local fence = string.format('%.0f', redis.call('INCR', KEYS[3]))
        redis.call('HSET', key, 't:' .. destination .. ':lease', fence, 't:' .. destination .. ':lease_until', lease_until)
        redis.call('ZADD', KEYS[2], lease_until, fence .. '\n' .. destination .. '\n' .. id)
        if limit > 0 then
          redis.call('ZADD', calls, ARGV[1], fence)
          redis.call('PEXPIRE', calls, minute)
        end
        redis.call('ZREM', queue, id)
        claimed[#claimed + 1] = {destination, fence, lease_until, id, redis.call('HGETALL', key)}
        most = most - 1
      else
        redis.call('ZREM', queue, id)
      end
    end
  end
  if redis.call('EXISTS', queue) == 0 then redis.call('SREM', KEYS[1], destination) end
end
if next_call then claimed[1] = string.format('%.0f', next_call) end
return claimed
