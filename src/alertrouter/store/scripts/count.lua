-- count: what thresholds of rules have counted, one version of one record included, however often it is asked.
-- KEYS  per threshold 3: zset of what it counts, "<version> <id>" by when (ms); the answers given, a hash by the same;
--       zset of the answers by when they were given
-- ARGV  1 now  2 what to count: "<version> <id>"  then per threshold 2: its window (ms), only look (0|1)
-- Returns per threshold how many were counted within its window. What was counted keeps the answer it got, through a
--       reset and beyond the window, so that judging it again (a retry, a take-over, the look before sending) decides
--       the same: a page that waits out an outage must not be counted anew, and be muted for coming alone.
local now, counted = tonumber(ARGV[1]), ARGV[2]
local day = 24 * 3600 * 1000
local results = {}
for i = 1, #KEYS / 3 do
  local counts, answers, given = KEYS[i * 3 - 2], KEYS[i * 3 - 1], KEYS[i * 3]
  local window, only_look = tonumber(ARGV[1 + i * 2]), ARGV[2 + i * 2] == '1'
  local keep = math.max(window, day)
  local too_old = string.format('%.0f', now - keep)
  redis.call('ZREMRANGEBYSCORE', counts, '-inf', string.format('%.0f', now - window))
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', given, '-inf', too_old)) do redis.call('HDEL', answers, old) end
  redis.call('ZREMRANGEBYSCORE', given, '-inf', too_old)
  local answer = tonumber(redis.call('HGET', answers, counted) or '0')
  if only_look then
    answer = redis.call('ZCARD', counts)
  elseif answer == 0 then
    redis.call('ZADD', counts, ARGV[1], counted)
    answer = redis.call('ZCARD', counts)
    redis.call('HSET', answers, counted, answer)
    redis.call('ZADD', given, ARGV[1], counted)
    redis.call('PEXPIRE', counts, window)
    redis.call('PEXPIRE', answers, keep)
    redis.call('PEXPIRE', given, keep)
  end
  results[i] = answer
end
return results
