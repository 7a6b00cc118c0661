-- look_at_counts: what `count` would answer, without counting. It changes nothing: Redis refuses a write here.
-- KEYS  per threshold 2: zset of what it counts; the answers given, a hash
-- ARGV  1 now  2 what would be counted: "<version> <id>"  then per threshold 2: its window (ms), only look (0|1)
-- Returns per threshold how many were counted within its window, this one included; the answer it got before, if it did.
local now, counted = tonumber(ARGV[1]), ARGV[2]
local results = {}
for i = 1, #KEYS / 2 do
  local counts, answers = KEYS[i * 2 - 1], KEYS[i * 2]
  local after, only_look = string.format('(%.0f', now - tonumber(ARGV[1 + i * 2])), ARGV[2 + i * 2] == '1'
  local answer = not only_look and tonumber(redis.call('HGET', answers, counted) or '0') or 0
  if answer == 0 then
    answer = redis.call('ZCOUNT', counts, after, '+inf') + (only_look and 0 or 1)
  end
  results[i] = answer
end
return results
