-- claim_sends: lease sends that wait, best rank first, within each routing key's call limit.
-- KEYS  1 waiting  2 this worker's leases  3 fence  4 owners  5 due  6 paused  7 failing
-- ARGV  1 now  2 lease (ms)  3 at most  4 calls allowed per routing key in 60 s (0 = no limit)  5 where to start
--       6 prefix of records  7 prefix of wait queues  8 prefix of calls  9 owner
--       10 failures in a row after which a routing key is only tried  11 how often, then (ms)  12 rank step
--       then per routing key with a limit of its own 2: what it is counted under, calls allowed
-- Returns {when the next call is allowed (ms, '' if nothing waits for one), then per send:
--       {destination, fence, lease_until, the record's id, its hash, flat}}.
-- Where calls are short, what is not critical waits for what is still to be judged, a minute at most: that may be critical.
-- A member of a queue is "<destination>\t<service>\t<id>".
local now, lease, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local record_prefix, wait_prefix, calls_prefix = ARGV[6], ARGV[7], ARGV[8]
local lease_until = string.format('%.0f', now + lease)
local minute, rank_step = 60000, tonumber(ARGV[12])
local limits = {}
for i = 13, #ARGV, 2 do limits[ARGV[i]] = tonumber(ARGV[i + 1]) end

-- leases are looked for by their owner: one that nobody knows would keep them for ever
redis.call('ZADD', KEYS[4], ARGV[1], ARGV[9])
local queues = redis.call('SMEMBERS', KEYS[1])
table.sort(queues)
local claimed, next_call = {''}, nil
local function not_before(at)
  if not next_call or at < next_call then next_call = at end
end
local paused, failing, due = {}, {}, nil
if #queues > 0 then
  local pauses = redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES')
  for i = 1, #pauses, 2 do paused[pauses[i]] = tonumber(pauses[i + 1]) end
  local failures = redis.call('HGETALL', KEYS[7])
  for i = 1, #failures, 2 do failing[failures[i]] = tonumber(failures[i + 1]) end
end

-- slots are shared out, so that one key's backlog does not starve another; each call starts elsewhere
for n = 1, #queues do
  local limited_as = queues[(n + tonumber(ARGV[5])) % #queues + 1]
  local queue, calls = wait_prefix .. limited_as, calls_prefix .. limited_as
  local limit = limits[limited_as] or tonumber(ARGV[4])
  local take, made, only_critical = math.ceil(most / (#queues - n + 1)), nil, false
  if paused[limited_as] and paused[limited_as] > now then
    take = 0
  elseif limit > 0 then
    redis.call('ZREMRANGEBYSCORE', calls, '-inf', string.format('%.0f', now - minute))
    made = redis.call('ZCARD', calls)
    take = math.min(take, limit - made)
    due = due or redis.call('ZCOUNT', KEYS[5], '-inf', ARGV[1])
    only_critical = due > 0 and take > 0 and redis.call('ZCARD', queue) + due > limit - made
  end
  if take > 0 then
    local first = 0
    if (failing[limited_as] or 0) >= tonumber(ARGV[10]) then
      -- nothing gets through: one is tried, another each time, lest it is that one's own fault; the rest keep their places
      first, take = failing[limited_as] % math.max(1, math.min(redis.call('ZCARD', queue), 16)), 1
      paused[limited_as] = now + tonumber(ARGV[11])
      redis.call('ZADD', KEYS[6], string.format('%.0f', paused[limited_as]), limited_as)
    end
    local found = redis.call('ZRANGE', queue, first, first + take - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      local member, score = found[i], tonumber(found[i + 1])
      if only_critical and score >= rank_step and score % rank_step + minute > now then break end
      local destination, id = string.match(member, '^([^\t]*)\t[^\t]*\t(.*)$')
      local key = record_prefix .. (id or member)
      local f = redis.call('HMGET', key, 'version', 't:' .. (destination or '') .. ':lease_until',
        't:' .. (destination or '') .. ':limited_as')
      if f[1] and (f[3] or '') ~= limited_as then
        -- it goes to another key by now, which has its own limit
        redis.call('ZADD', KEYS[5], 'LT', ARGV[1], id or member)
      elseif f[1] and f[2] and tonumber(f[2]) > now then
        redis.call('ZADD', KEYS[5], 'LT', f[2], id) -- one send at a time: after that one it is judged again
      elseif f[1] then
        local fence = string.format('%.0f', redis.call('INCR', KEYS[3]))
        redis.call('HSET', key, 't:' .. destination .. ':lease', fence, 't:' .. destination .. ':lease_until', lease_until)
        redis.call('ZADD', KEYS[2], lease_until, fence .. '\n' .. destination .. '\n' .. id)
        if limit > 0 then
          redis.call('ZADD', calls, ARGV[1], fence)
          redis.call('PEXPIRE', calls, 2 * minute) -- a call counts from when it arrived, which is later
          made = made + 1
        end
        claimed[#claimed + 1] = {destination, fence, lease_until, id, redis.call('HGETALL', key)}
        most = most - 1
      end
      redis.call('ZREM', queue, member)
    end
  end
  if redis.call('EXISTS', queue) == 0 then
    redis.call('SREM', KEYS[1], limited_as)
  elseif paused[limited_as] and paused[limited_as] > now then
    not_before(paused[limited_as])
  elseif made and made >= limit then
    -- the one whose end leaves room: not the first, where the limit was lowered since
    not_before(tonumber(redis.call('ZRANGE', calls, made - limit, made - limit, 'WITHSCORES')[2]) + minute)
  end
end
for limited_as, at in pairs(paused) do
  if at <= now then redis.call('ZREM', KEYS[6], limited_as) end
end
if next_call then claimed[1] = string.format('%.0f', next_call) end
return claimed
