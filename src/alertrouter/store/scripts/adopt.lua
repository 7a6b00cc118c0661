-- adopt: put down what was told to PagerDuty past us, while Redis was away.
-- KEYS  1 the alert's record  2 due
-- ARGV  1 now  2 id  3 destination  4 routing key  5 what its call limit is counted under
--       6 key of a shared incident ('' for the alert's own)  7 state told ('' where no answer came)  8 when
--       9.. what was told of: status, severity, episode
-- Returns 1, or 0 where there is no such record.
-- What is open under another key stays pinned to it: this is then put down as told to a destination of its own, named
-- after both, which nothing but the resolve will be sent to.
local key, now, state, at = KEYS[1], ARGV[1], ARGV[7], tonumber(ARGV[8])
local f = redis.call('HMGET', key, 'version', 'status', 'severity', 'episode', 'resolved_version')
if not f[1] then return 0 end

local function told_of(destination)
  local t = redis.call('HMGET', key, 't:' .. destination .. ':state', 't:' .. destination .. ':maybe_open',
    't:' .. destination .. ':key', 't:' .. destination .. ':at', 't:' .. destination .. ':version',
    't:' .. destination .. ':dedup_key')
  t.state, t.key, t.at, t.version = t[1] or '', t[3] or '', tonumber(t[4] or '0'), t[5] or '0'
  t.dedup_key = t[6] or ''
  t.heard_version = math.max(tonumber(t.version), tonumber(t[2] or '0'))
  t.is_open = t.state == 'triggered' or t.state == 'acknowledged' or (t[2] or '0') ~= '0'
  return t
end

local destination = ARGV[3]
local told = told_of(destination)
if told.is_open and (told.key ~= ARGV[4] or told.dedup_key ~= ARGV[6]) then
  destination = destination .. '#' .. ARGV[5]
  told = told_of(destination)
  if state == 'resolved' and not told.is_open then
    redis.call('ZADD', KEYS[2], 'LT', now, ARGV[2])
    return 1
  end
end
local prefix = 't:' .. destination .. ':'
if state ~= '' and at >= told.at then
  local is_newest = ARGV[9] == f[2] and ARGV[10] == f[3] and ARGV[11] == f[4]
  -- it only added to a page whose resolve is still owed: that comes first, and then a page of its own
  local was_added = state == 'triggered' and told.is_open and told.heard_version < tonumber(f[5] or '0')
  redis.call('HSET', key, prefix .. 'state', state, prefix .. 'at', ARGV[8], prefix .. 'maybe_open', '0',
    prefix .. 'version', is_newest and not was_added and f[1] or told.version)
  if state == 'triggered' then redis.call('HSET', key, 'delivered_at', ARGV[8]) end
elseif state == '' and ARGV[9] == 'firing' then
  redis.call('HSET', key, prefix .. 'maybe_open', f[1])
end
-- whether it or what we sent before the outage came last cannot be known: the present state is sent once more later
redis.call('HSET', key, prefix .. 'key', ARGV[4], prefix .. 'limited_as', ARGV[5], prefix .. 'dedup_key', ARGV[6],
  prefix .. 'unsure', now)
redis.call('ZADD', KEYS[2], 'LT', now, ARGV[2])
return 1
