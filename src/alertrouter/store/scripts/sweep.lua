-- sweep: forget what rules kept from being sent and nobody has heard of since; that it was so stays on record.
-- KEYS  1 parked  2 history  3 due
-- ARGV  1 now  2 unheard for (ms)  3 prefix of records  4 at most  5 history length, 0 for none  6 unheard for at most (ms)
-- Returns how many were looked at; fewer than asked for means that none are left.
-- What was ever told to anybody, or waits as a dead letter, stays; and what will be judged again before it has been unheard
-- for at most: not every sender repeats what fires, and it may outlive its window.
local before = tonumber(ARGV[1]) - tonumber(ARGV[2])
local function is_awaited(id, last_heard)
  local due = redis.call('ZSCORE', KEYS[3], id)
  return due and tonumber(due) < tonumber(last_heard) + tonumber(ARGV[6])
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', before), 'LIMIT', 0, tonumber(ARGV[4]))
for _, id in ipairs(found) do
  local key = ARGV[3] .. id
  local f = redis.call('HMGET', key, 'outcome', 'last_heard', 'version', 'rule', 'service')
  local is_told = false
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.match(name, '^t:') then is_told = true end
  end
  if not f[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif (f[1] ~= 'suppressed' and f[1] ~= 'dropped') or is_told or is_awaited(id, f[2]) then
    redis.call('ZADD', KEYS[1], ARGV[1], id) -- looked at again when as much time has passed
  elseif tonumber(f[2]) > before then
    redis.call('ZADD', KEYS[1], f[2], id)
  else
    redis.call('ZREM', KEYS[1], id)
    redis.call('DEL', key)
    if ARGV[5] ~= '0' then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'kind', 'ended', 'id', id, 'at', ARGV[1],
        'version', f[3], 'outcome', f[1], 'rule', f[4] or '', 'service', f[5] or '',
        'reason', 'never sent, and not heard of for ' .. math.floor(tonumber(ARGV[2]) / 3600000) .. ' h: forgotten')
    end
  end
end
return #found
