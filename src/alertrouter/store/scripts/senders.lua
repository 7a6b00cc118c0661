-- senders: take in whose webhooks were taken and whose were refused, and tell whose refusal is to be said.
-- KEYS  1 senders  2 refused
-- ARGV  1 now  2 so many refusals  3 within this time (ms) are worth saying  4 prefix of the alarms' records
--       5 what was refused only once or twice is forgotten after (ms)  6 so is a sender that was not heard for (ms)
--       7 number of senders taken, then of each 2: sender, when (ms)
--       then per refusal 4: sender, when (ms), known anyway (0|1), words
-- Returns per sender with refusals since it was last taken, or with an open alarm, 4: sender, refused | taken | some,
--       words, whether its alarm is firing (0|1).
-- A refusal of somebody who was never taken counts only where it is known anyway: names can be made up.
local now, most, within = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = tonumber(ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('%.0f', now + within), '+inf') -- the clock was set back
for at = 8, 7 + 2 * taken, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[at + 1], ARGV[at])
end
for at = 8 + 2 * taken, #ARGV, 4 do
  local sender, when, known = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
  if known or redis.call('ZSCORE', KEYS[1], sender) then
    local entry = cjson.decode(redis.call('HGET', KEYS[2], sender) or '{"at":[]}')
    entry.at[#entry.at + 1] = when
    table.sort(entry.at)
    if #entry.at > most then table.remove(entry.at, 1) end
    entry.said = ARGV[at + 3]
    redis.call('HSET', KEYS[2], sender, cjson.encode(entry))
  end
end

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[6])))

local results = {}
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local sender, entry, state = flat[i], cjson.decode(flat[i + 1]), 'some'
  local taken_at = tonumber(redis.call('ZSCORE', KEYS[1], sender) or '0')
  local is_alarmed = redis.call('HGET', ARGV[4] .. sender, 'status') == 'firing'
  local first, last, count = nil, 0, 0
  for _, when in ipairs(entry.at) do
    if when > taken_at then
      first, last, count = first or when, when, count + 1
    end
  end
  if count == 0 then
    state = 'taken'
  elseif count >= most and last - first <= within then
    state = 'refused'
  end
  local is_old = state == 'taken' or (state == 'some' and now - last > tonumber(ARGV[5]))
  if is_old and not is_alarmed then
    redis.call('HDEL', KEYS[2], sender)
  else
    for _, each in ipairs({sender, state, entry.said, is_alarmed and '1' or '0'}) do results[#results + 1] = each end
  end
end
return results
