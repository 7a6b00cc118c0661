-- count: what thresholds of rules have counted, one version of one record included, however often it is asked.
-- KEYS  1.. one zset per threshold, "<version> <id>" by when it was counted (ms)
-- ARGV  1 now  2 what to count: "<version> <id>"  then per threshold its window (ms)
-- Returns per threshold how many were counted within its window. What was counted keeps the answer it got, in a hash
--       beside the zset, so that judging it again (a retry, a take-over, the look before sending) decides the same.
local now, counted = tonumber(ARGV[1]), ARGV[2]
local results = {}
for i, key in ipairs(KEYS) do
  local window = tonumber(ARGV[2 + i])
  local answers = key .. ':answers'
  local answer = tonumber(redis.call('HGET', answers, counted) or '0')
  if answer == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now - window))
    redis.call('ZADD', key, ARGV[1], counted)
    answer = redis.call('ZCARD', key)
    redis.call('HSET', answers, counted, answer)
    redis.call('PEXPIRE', key, window)
    redis.call('PEXPIRE', answers, window)
  end
  results[i] = answer
end
return results
