-- judged: put down what was decided about claimed records, and queue their sends.
-- KEYS  1 due  2 this worker's leases  3 waiting  4 history  5 parked
-- ARGV  1 now  2 prefix of records  3 prefix of wait queues  4 lifetime of a closed record (ms)
--       5 history length, 0 for none
--       then per record 11: id, version, outcome, rule, reason, service, wake_at, closed (0|1), parked (0|1),
--       suspended_until, number of sends, and per send 6: destination, score in its wait queue, routing key ('' keeps what
--       is pinned), what its call limit is counted under, key of a shared incident ('' for the alert's own), version that
--       it opens (0 for none)
-- A send waits in the queue of its routing key, named as its call limit, as "<destination>\t<service>\t<id>"; the record
-- keeps in `waits` a line "<queue>\t<destination>\t<service>" for each.
-- Returns the number of records put down; the others have newer news and are due again.
local now, record_prefix, wait_prefix = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local at, count = 5, 0
while at < #ARGV do
  local id, version, outcome, rule, reason = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local service, wake_at, closed, parked = ARGV[at + 6], ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local suspended_until, sends = ARGV[at + 10], tonumber(ARGV[at + 11])
  local first_send = at + 11
  at = first_send + sends * 6
  local key = record_prefix .. id
  local f = redis.call('HMGET', key, 'version', 'waits', 'outcome')
  if f[1] ~= version then
    if f[1] then redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id) end
  else
    for queue, place in string.gmatch(f[2] or '', '([^\t\n]*)\t([^\n]*)') do
      redis.call('ZREM', wait_prefix .. queue, place .. '\t' .. id)
    end
    local waits = {}
    for s = 0, sends - 1 do
      local destination, score = ARGV[first_send + s * 6 + 1], ARGV[first_send + s * 6 + 2]
      local routing_key, limited_as = ARGV[first_send + s * 6 + 3], ARGV[first_send + s * 6 + 4]
      local dedup_key, opens = ARGV[first_send + s * 6 + 5], ARGV[first_send + s * 6 + 6]
      local t = redis.call('HMGET', key, 't:' .. destination .. ':lease_until', 't:' .. destination .. ':limited_as')
      local lease_until = tonumber(t[1] or '0')
      if lease_until > now then
        -- another worker sends meanwhile, by what it knew: look again when it is done, and leave its key alone
        redis.call('ZADD', KEYS[1], 'LT', string.format('%.0f', lease_until), id)
      else
        local queue = routing_key ~= '' and limited_as or t[2] or ''
        local place = destination .. '\t' .. string.gsub(service, '[\t\n]', ' ')
        redis.call('ZADD', wait_prefix .. queue, score, place .. '\t' .. id)
        redis.call('SADD', KEYS[3], queue)
        redis.call('HSET', key, 't:' .. destination .. ':opens', opens)
        if routing_key ~= '' then
          redis.call('HSET', key, 't:' .. destination .. ':key', routing_key,
            't:' .. destination .. ':limited_as', limited_as, 't:' .. destination .. ':dedup_key', dedup_key)
        end
        waits[#waits + 1] = queue .. '\t' .. place
      end
    end
    redis.call('HSET', key, 'outcome', outcome, 'rule', rule, 'reason', reason, 'service', service,
      'waits', table.concat(waits, '\n'), 'suspended_until', suspended_until)
    if sends == 0 then redis.call('HDEL', key, 'takeovers') end -- it was judged, and its worker is still there
    if parked == '1' then redis.call('ZADD', KEYS[5], ARGV[1], id) else redis.call('ZREM', KEYS[5], id) end
    if wake_at ~= '0' then redis.call('ZADD', KEYS[1], 'LT', wake_at, id) end
    if ARGV[5] ~= '0' and outcome ~= 'pending' and outcome ~= f[3] and id ~= 'alertrouter:canary' then
      redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[5], '*', 'kind', 'ended', 'id', id, 'at', ARGV[1],
        'version', version, 'outcome', outcome, 'rule', rule, 'reason', reason, 'service', service)
    end
    if closed == '1' then redis.call('PEXPIRE', key, ARGV[4]) end
    count = count + 1
  end
  -- last: were anything above to fail, the lease would bring the record back
  redis.call('ZREM', KEYS[2], '\n\n' .. id)
end
return count
