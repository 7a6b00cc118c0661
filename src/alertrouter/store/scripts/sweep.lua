-- sweep: forget what was kept from being sent, by rules or by refusals, and nobody has heard of since; that stays on record.
-- KEYS  1 parked  2 history  3 due
-- ARGV  1 now  2 unheard for (ms)  3 prefix of records  4 at most  5 history length, 0 for none  6 unheard for at most (ms)
-- Returns how many were looked at; fewer than asked for means that none are left.
-- What was told of before, or is a dead letter, stays until it has been unheard for at most; and what is open, until it is
-- resolved. What will be judged again before it has been unheard for at most stays, too: not every sender repeats what
-- fires, and it may outlive its window.
local now, unheard_for, at_most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
local before = now - unheard_for
local function is_awaited(id, last_heard)
  local due = redis.call('ZSCORE', KEYS[3], id)
  return due and tonumber(due) < tonumber(last_heard) + at_most
end

-- whether anybody was told, or tried to be, and whether it may be open there
local function told_of(key)
  local is_told, is_open = false, false
  for _, name in ipairs(redis.call('HKEYS', key)) do
    is_told = is_told or string.match(name, '^t:') ~= nil
    if string.match(name, '^t:.*:state$') then
      local state = redis.call('HGET', key, name)
      is_open = is_open or state == 'triggered' or state == 'acknowledged'
    elseif string.match(name, '^t:.*:maybe_open$') then
      is_open = is_open or redis.call('HGET', key, name) ~= '0'
    end
  end
  return is_told, is_open
end

local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', before), 'LIMIT', 0, tonumber(ARGV[4]))
for _, id in ipairs(found) do
  local key = ARGV[3] .. id
  local f = redis.call('HMGET', key, 'outcome', 'last_heard', 'version', 'rule', 'service', 'status')
  local is_told, is_open = told_of(key)
  local is_kept_back = f[1] == 'suppressed' or f[1] == 'dropped'
  local forgotten_after = is_kept_back and not is_told and unheard_for or at_most
  if not f[1] then
    redis.call('ZREM', KEYS[1], id)
  elseif not (is_kept_back or f[1] == 'dead_lettered') or (is_open and f[6] ~= 'resolved') or is_awaited(id, f[2]) then
    redis.call('ZADD', KEYS[1], ARGV[1], id) -- looked at again when as much time has passed
  elseif tonumber(f[2]) > now - forgotten_after then
    redis.call('ZADD', KEYS[1], string.format('%.0f', tonumber(f[2]) + forgotten_after - unheard_for), id)
  else
    redis.call('ZREM', KEYS[1], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('DEL', key)
    if ARGV[5] ~= '0' then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'kind', 'ended', 'id', id, 'at', ARGV[1],
        'version', f[3], 'outcome', f[1], 'rule', f[4] or '', 'service', f[5] or '',
        'reason', 'not sent, and not heard of for ' .. math.floor(forgotten_after / 3600000) .. ' h: forgotten')
    end
  end
end
return #found
