-- claim_due: lease records that are due to be judged, after taking back what dead or stuck workers hold.
-- KEYS  1 due  2 owners  3 this worker's leases  4 dead letters  5 order of dead letters
-- ARGV  1 now  2 owner  3 lease  4 an owner is dead after (ms)  5 at most  6 prefix of records  7 prefix of leases
--       8 take-overs without a report after which a record is poisoned  9 prefix of calls
--       10 largest alert that a dead letter keeps (bytes)
-- Returns {when the next record is due (ms, '' for none), then per record: {its id, its hash, flat}}.
local now, owner, lease, dead_after = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local record_prefix, lease_prefix, most_takeovers = ARGV[6], ARGV[7], tonumber(ARGV[8])
local largest_alert = tonumber(ARGV[10])

-- Workers die of this record: it is a dead letter, to be told in a minimal form, and then not to be touched again.
local function is_set_aside(key, id, takeovers)
  if takeovers == most_takeovers then
    redis.call('HSET', key, 'poisoned', '1')
    local f = redis.call('HMGET', key, 'alert', 'version', 'first_heard', 'service', 'severity')
    local letter = cjson.encode({
      kind = 'poisoned', id = id, at = now, reason = 'every worker that took it up ended: ' .. takeovers .. ' times',
      version = tonumber(f[2]), first_heard = tonumber(f[3] or '0'), service = f[4] or '', severity = f[5] or '',
      source = string.match(id, '^[^:]*'), attempts = takeovers,
    })
    if f[1] and #f[1] <= largest_alert then letter = string.sub(letter, 1, -2) .. ',"alert":' .. f[1] .. '}' end
    local about = 'poisoned\n\n' .. ARGV[1] .. '\n' .. id
    local last = tonumber(redis.call('ZREVRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2] or '0')
    redis.call('HSET', KEYS[4], about, letter)
    redis.call('ZADD', KEYS[5], string.format('%.0f', math.max(now, last + 1)), about)
  elseif takeovers >= 2 * most_takeovers then
    redis.call('HSET', key, 'outcome', 'dead_lettered')
    return true
  end
  return false
end

-- A lease is "<fence>\n<destination>\n<id>"; fence and destination are empty for a record being judged.
local function take_back(leases, member)
  local fence, destination, id = string.match(member, '^([^\n]*)\n([^\n]*)\n(.*)$')
  local key = record_prefix .. id
  redis.call('ZREM', leases, member)
  if redis.call('EXISTS', key) == 1 then
    if fence ~= '' and redis.call('HGET', key, 't:' .. destination .. ':lease') == fence then
      -- the send may have happened: nobody is left to say
      redis.call('HSET', key, 't:' .. destination .. ':lease', '', 't:' .. destination .. ':lease_until', '0',
        't:' .. destination .. ':unsure', ARGV[1])
      local limited_as = redis.call('HGET', key, 't:' .. destination .. ':limited_as')
      if limited_as then redis.call('ZADD', ARGV[9] .. limited_as, 'XX', ARGV[1], fence) end
      local opens = redis.call('HGET', key, 't:' .. destination .. ':opens')
      if opens and opens ~= '0' then redis.call('HSET', key, 't:' .. destination .. ':maybe_open', opens) end
      redis.call('HINCRBY', key, 't:' .. destination .. ':tries', 1)
    end
    local takeovers = redis.call('HINCRBY', key, 'takeovers', 1)
    if not is_set_aside(key, id, takeovers) then
      -- others first: it may be what its worker ended of
      redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', now + (takeovers - 1) * 1000), id)
    end
  end
end

redis.call('ZADD', KEYS[2], ARGV[1], owner)
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - dead_after), 'LIMIT', 0, 8)) do
  local leases = lease_prefix .. dead
  for _, member in ipairs(redis.call('ZRANGE', leases, 0, 255)) do take_back(leases, member) end
  if redis.call('EXISTS', leases) == 0 then redis.call('ZREM', KEYS[2], dead) end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 256)) do
  take_back(KEYS[3], member)
end

local claimed = {''}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, tonumber(ARGV[5]))) do
  -- a record whose worker ended is judged alone: if that one ends too, it was not another's fault
  local is_suspect = (redis.call('HGET', record_prefix .. id, 'takeovers') or '0') ~= '0'
  if is_suspect and #claimed > 1 then break end
  redis.call('ZREM', KEYS[1], id)
  local record = redis.call('HGETALL', record_prefix .. id)
  if #record > 0 then
    redis.call('ZADD', KEYS[3], string.format('%.0f', now + lease), '\n\n' .. id)
    claimed[#claimed + 1] = {id, record}
    if is_suspect then break end
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then claimed[1] = first[2] end
return claimed
