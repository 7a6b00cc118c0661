-- settle: put down how sends ended and give their leases back.
-- KEYS  1 due  2 this worker's leases  3 dead letters  4 history  5 parked  6 order of dead letters  7 paused  8 failing
-- ARGV  1 now  2 prefix of records  3 repair after (ms)  4 lifetime of a closed record (ms)
--       5 history length, 0 for none  6 prefix of calls  7 failures in a row after which a routing key is only tried
--       then per send 21: id, destination, fence, result (delivered|again|changed|refused|released), state told, version told (or refused),
--       version claimed, outcome of that version, closed (0|1), wake_at, not_before,
--       ambiguous (0|1), detail, rung, rerouted (0|1), routing key ('' keeps the one in use), what its call limit is
--       counted under, version that it opens (0 for none),
--       refused for its key, or a resolve (0|1), dead letter (JSON; '' for the detail itself),
--       until when its routing key is to be left alone (ms, 0 for no such wish)
-- Returns per send 1 if it was put down, 0 if the lease had been taken away meanwhile (the state told is then
--       unsure, and repaired later).
local now, record_prefix, repair_after = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local results = {}
for at = 7, #ARGV - 1, 21 do
  local id, destination, fence, result = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local state, told_version, version, outcome = ARGV[at + 5], ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  local closed, wake_at, not_before = ARGV[at + 9], ARGV[at + 10], ARGV[at + 11]
  local ambiguous, detail, rung, rerouted = ARGV[at + 12], ARGV[at + 13], ARGV[at + 14], ARGV[at + 15]
  local routing_key, limited_as, opens, bad_key = ARGV[at + 16], ARGV[at + 17], ARGV[at + 18], ARGV[at + 19]
  local letter = ARGV[at + 20] ~= '' and ARGV[at + 20] or detail
  local paused_until = ARGV[at + 21]
  local key, told = record_prefix .. id, 't:' .. destination .. ':'
  redis.call('ZREM', KEYS[2], fence .. '\n' .. destination .. '\n' .. id)
  local f = redis.call('HMGET', key, 'version', told .. 'lease', told .. 'unsure', 'outcome', 'rule', 'service',
    told .. 'rerouted', told .. 'limited_as', 'status', 'first_heard',
    told .. 'dead')
  if f[8] and result == 'released' then
    redis.call('ZREM', ARGV[6] .. f[8], fence) -- it was not made
  elseif f[8] then
    -- PagerDuty counts a call when it arrives, which was not before now less the time it took
    redis.call('ZADD', ARGV[6] .. f[8], 'XX', ARGV[1], fence)
  end
  if paused_until ~= '0' and f[8] then
    redis.call('ZADD', KEYS[7], 'GT', paused_until, f[8])
    redis.call('HDEL', KEYS[8], f[8]) -- it answers, and a call begun before does not end its pause
  elseif result == 'again' and f[8] then
    -- whatever is sent fails, and not this alert: it keeps its place among the others, who wait with it
    if redis.call('HINCRBY', KEYS[8], f[8], 1) >= tonumber(ARGV[7]) then wake_at, not_before = ARGV[1], '0' end
  elseif result ~= 'released' and f[8] then
    local failures = redis.call('HGET', KEYS[8], f[8])
    if failures then redis.call('HDEL', KEYS[8], f[8]) end
    if failures and tonumber(failures) >= tonumber(ARGV[7]) then redis.call('ZREM', KEYS[7], f[8]) end
  end
  local is_held = f[2] == fence
  if ARGV[5] ~= '0' and result ~= 'released' then
    local entry = {'kind', 'sent', 'id', id, 'at', ARGV[1], 'version', version, 'destination', destination,
      'result', result, 'state', state, 'reason', detail, 'rule', f[5] or '', 'service', f[6] or ''}
    if f[7] == '1' then
      entry[#entry + 1], entry[#entry + 2] = 'rerouted', '1'
    end
    if is_held and f[1] == version and outcome ~= f[4] then
      entry[#entry + 1], entry[#entry + 2] = 'outcome', outcome
    end
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', unpack(entry))
  end
  if not is_held then
    if f[1] then
      if result == 'delivered' or ambiguous == '1' then
        redis.call('HSET', key, told .. 'unsure', ARGV[1])
        if opens ~= '0' then redis.call('HSET', key, told .. 'maybe_open', opens) end
      end
      redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
    end
    results[#results + 1] = 0
  else
    redis.call('HSET', key, told .. 'lease', '', told .. 'lease_until', '0', 'takeovers', '0')
    if result == 'delivered' then
      redis.call('HSET', key, told .. 'state', state, told .. 'version', told_version, told .. 'at', ARGV[1],
        told .. 'tries', '0', told .. 'not_before', '0', told .. 'maybe_open', '0')
      -- a repair tells of an older version, and says nothing of what was given up since
      if tonumber(told_version) >= tonumber(f[11] or '0') then redis.call('HSET', key, told .. 'dead', '0') end
      if state == 'triggered' then redis.call('HSET', key, 'delivered_at', ARGV[1]) end
      local unsure = tonumber(f[3] or '0')
      if unsure > 0 and now >= unsure + repair_after then redis.call('HSET', key, told .. 'unsure', '0') end
    elseif result == 'again' then
      redis.call('HINCRBY', key, told .. 'tries', 1)
      redis.call('HSET', key, told .. 'not_before', not_before)
      if ambiguous == '1' then
        redis.call('HSET', key, told .. 'unsure', ARGV[1])
        if opens ~= '0' then redis.call('HSET', key, told .. 'maybe_open', opens) end
      end
    elseif result == 'changed' then
      redis.call('HSET', key, told .. 'refused', version, told .. 'rung', rung, told .. 'rerouted', rerouted,
        told .. 'refusal', detail)
      if routing_key ~= '' then
        redis.call('HSET', key, told .. 'key', routing_key, told .. 'limited_as', limited_as)
      end
    elseif result == 'refused' then
      redis.call('HSET', key, told .. 'dead', told_version, told .. 'bad_key', bad_key, told .. 'tries', '0')
      -- numbered by time; two of one instant differ all the same, and a number never comes twice
      local about = 'refused\n' .. destination .. '\n' .. (f[10] or '') .. ' ' .. told_version .. '\n' .. id
      local last = tonumber(redis.call('ZREVRANGE', KEYS[6], 0, 0, 'WITHSCORES')[2] or '0')
      redis.call('HSET', KEYS[3], about, letter)
      redis.call('ZADD', KEYS[6], string.format('%.0f', math.max(now, last + 1)), about)
    end
    if f[1] == version then
      if outcome ~= f[4] then redis.call('HSET', key, 'outcome', outcome) end
      local is_kept = (outcome == 'suppressed' or outcome == 'dropped') and f[9] ~= 'resolved'
      if outcome == 'dead_lettered' or is_kept then redis.call('ZADD', KEYS[5], ARGV[1], id) end
      if wake_at ~= '0' then redis.call('ZADD', KEYS[1], 'LT', wake_at, id) end
      if closed == '1' then redis.call('PEXPIRE', key, ARGV[4]) end
    else
      redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
    end
    results[#results + 1] = 1
  end
end
return results
