-- resolve_unheard: an alert that was not repeated for too long is resolved by us, unless it has been heard by now.
-- KEYS  1 due  2 this worker's leases  3 history  4 parked
-- ARGV  1 now  2 id  3 prefix of records  4 version and 5 last_heard that this was decided on
--       6 the alert, resolved (JSON)  7 reason  8 history length, 0 for none  9 prefix of wait queues
-- Returns 1, or 0 if it has been heard since or is gone. Either way the lease is given back and the record is due.
local now, id = ARGV[1], ARGV[2]
local key = ARGV[3] .. id
local f = redis.call('HMGET', key, 'version', 'last_heard', 'status', 'waits')
local is_unheard = f[1] == ARGV[4] and f[2] == ARGV[5] and f[3] ~= 'resolved'
if f[1] then redis.call('ZADD', KEYS[1], 'LT', now, id) end
if is_unheard then
  local version = redis.call('HINCRBY', key, 'version', 1)
  redis.call('HSET', key, 'status', 'resolved', 'resolved_version', version, 'news', 'silent', 'outcome', 'pending',
    'alert', ARGV[6], 'reason', ARGV[7], 'hold_until', '0', 'waits', '')
  redis.call('ZREM', KEYS[4], id)
  for queue, place in string.gmatch(f[4] or '', '([^\t\n]*)\t([^\n]*)') do
    redis.call('ZREM', ARGV[9] .. queue, place .. '\t' .. id)
  end
  if ARGV[8] ~= '0' then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', 'at', now, 'kind', 'heard', 'id', id, 'news', 'silent',
      'version', version, 'alert', ARGV[6], 'reason', ARGV[7])
  end
end
redis.call('ZREM', KEYS[2], '\n\n' .. id)
return is_unheard and 1 or 0
