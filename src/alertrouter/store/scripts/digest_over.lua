-- digest_over: whether of the members of a digest none waits and none is open any more.
-- KEYS  1 members
-- ARGV  1 how many to look at, at most  2 prefix of records
-- Returns 1 if none is left, else 0. Who is over is forgotten, so that each member is looked at once, and the one that is
--       found open stands for the rest.
for _ = 1, tonumber(ARGV[1]) do
  local id = redis.call('SRANDMEMBER', KEYS[1])
  if not id then return 1 end
  local record = redis.call('HGETALL', ARGV[2] .. id)
  for i = 1, #record, 2 do
    local name, value = record[i], record[i + 1]
    local is_told = string.match(name, '^t:.*:state$') and (value == 'triggered' or value == 'acknowledged')
    local may_be = string.match(name, '^t:.*:maybe_open$') and value ~= '0'
    if is_told or may_be or (name == 'outcome' and value == 'pending') then return 0 end
  end
  redis.call('SREM', KEYS[1], id)
end
return redis.call('EXISTS', KEYS[1]) == 0 and 1 or 0
