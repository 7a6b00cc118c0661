-- letters_extent: how much the dead letters are. It changes nothing: Redis refuses a write here.
-- KEYS  1 dead letters  2 their order
-- ARGV  1 most letters  2 most bytes  3 how many to name at most
-- Returns {letters, bytes, number of the oldest ('' for none), then the numbers of those that are too many, oldest first}.
local order = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
local bytes, sizes = 0, {}
for i = 1, #order, 2 do
  sizes[i] = redis.call('HSTRLEN', KEYS[1], order[i]) + #order[i]
  bytes = bytes + sizes[i]
end
local letters = #order / 2
local extent = {letters, bytes, order[2] and string.format('%.0f', tonumber(order[2])) or ''}
for i = 1, #order, 2 do
  if (letters <= tonumber(ARGV[1]) and bytes <= tonumber(ARGV[2])) or #extent - 3 >= tonumber(ARGV[3]) then break end
  extent[#extent + 1] = string.format('%.0f', tonumber(order[i + 1]))
  letters, bytes = letters - 1, bytes - sizes[i]
end
return extent
