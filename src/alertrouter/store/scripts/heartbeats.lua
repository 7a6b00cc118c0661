-- heartbeats: take in what was heard, and tell which heartbeats are heard and which are silent.
-- KEYS  1 heard  2 watch
-- ARGV  1 now  2 nobody watched if the last look is older than this (ms)  3 a heartbeat that nobody has asked after for
--       so long is gone (ms)  4 prefix of the alarms' records  5 number of heartbeats, then of each 2: name, silent after (ms)
--       then per sign of life 2: name, when (ms)
-- Returns per heartbeat 4: name, heard | silent | waiting | gone, when it was last heard (ms, 0 for never),
--       whether its alarm is firing (0|1).
-- Silent is what had all its time to be heard while somebody watched: after a pause nobody knows what was missed.
local now, pause, forget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count = tonumber(ARGV[5])
for i = 6 + 2 * count, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[i + 1], ARGV[i]) end

local watch, known = {}, {}
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local name = string.match(flat[i], '^h:(.+)$')
  if name then
    local first, last = string.match(flat[i + 1], '^(%d+) (%d+)$')
    known[name] = {first, tonumber(last)}
  else
    watch[flat[i]] = tonumber(flat[i + 1])
  end
end
if count == 0 and next(known) == nil then return {} end
local was_set_back = watch.at and watch.at - now > pause
if was_set_back then -- the clock: what was heard in its future was heard by now
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf')) do
    redis.call('ZADD', KEYS[1], ARGV[1], name)
  end
end
local is_resumed = not watch.at or now - watch.at > pause or was_set_back
local since = is_resumed and now or watch.since
local at = is_resumed and now or math.max(now, watch.at)
redis.call('HSET', KEYS[2], 'at', string.format('%.0f', at), 'since', string.format('%.0f', since))
if is_resumed then -- others may have configured what we do not know of, and have not asked since
  for name, each in pairs(known) do
    each[1], each[2] = was_set_back and ARGV[1] or each[1], now
    redis.call('HSET', KEYS[2], 'h:' .. name, each[1] .. ' ' .. ARGV[1])
  end
end

local results = {}
local function say(name, state, heard)
  local is_alarmed = redis.call('HGET', ARGV[4] .. name, 'status') == 'firing'
  for _, each in ipairs({name, state, string.format('%.0f', heard), is_alarmed and '1' or '0'}) do
    results[#results + 1] = each
  end
  return is_alarmed
end

for i = 6, 5 + 2 * count, 2 do
  local name, silent_after = ARGV[i], tonumber(ARGV[i + 1])
  local entry = known[name] or {ARGV[1], 0}
  if now - entry[2] > forget / 4 then redis.call('HSET', KEYS[2], 'h:' .. name, entry[1] .. ' ' .. ARGV[1]) end
  known[name] = nil
  local heard = tonumber(redis.call('ZSCORE', KEYS[1], name) or '0')
  if now - heard < silent_after then
    say(name, 'heard', heard)
  elseif now - math.max(heard, since, tonumber(entry[1])) < silent_after then
    say(name, 'waiting', heard)
  else
    say(name, 'silent', heard)
  end
end
for name, entry in pairs(known) do
  -- one whose alarm is open stays until that is over
  if now - entry[2] > forget and not say(name, 'gone', now) then
    redis.call('HDEL', KEYS[2], 'h:' .. name)
    redis.call('ZREM', KEYS[1], name)
  end
end
return results
