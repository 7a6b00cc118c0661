-- letters: dead letters, the newest first. It changes nothing: Redis refuses a write here.
-- KEYS  1 dead letters  2 their order
-- ARGV  1 highest number ("+inf"; "(" before one leaves it out)  2 lowest number  3 at most
-- Returns per letter {number, what it is about, letter (JSON)}; one that is being dropped has no letter and is left out.
local found = {}
local page = redis.call('ZREVRANGEBYSCORE', KEYS[2], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[3]))
for i = 1, #page, 2 do
  local letter = redis.call('HGET', KEYS[1], page[i])
  if letter then found[#found + 1] = {string.format('%.0f', tonumber(page[i + 1])), page[i], letter} end
end
return found
