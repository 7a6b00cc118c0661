-- remember_change: remember a change for who is paged for its service, and forget what is over.
-- KEYS  1 remembered changes
-- ARGV  1 service  2 the change as JSON, [at, summary, href]  3 how many of a service  4 older ones are forgotten (ms)
-- Returns how many services have any.
local function put(service, changes)
  if #changes == 0 then
    redis.call('HDEL', KEYS[1], service)
  else
    redis.call('HSET', KEYS[1], service, cjson.encode(changes))
  end
end
local flat = redis.call('HGETALL', KEYS[1])
local mine = {}
for i = 1, #flat, 2 do
  local kept = {}
  for _, change in ipairs(cjson.decode(flat[i + 1])) do
    if change[1] > tonumber(ARGV[4]) then kept[#kept + 1] = change end
  end
  if flat[i] == ARGV[1] then mine = kept else put(flat[i], kept) end
end
local new = cjson.decode(ARGV[2])
for i, change in ipairs(mine) do -- one that is sent once more is remembered once
  if change[1] == new[1] and change[2] == new[2] then table.remove(mine, i) break end
end
mine[#mine + 1] = new
table.sort(mine, function(a, b) return a[1] > b[1] end)
while #mine > tonumber(ARGV[3]) do table.remove(mine) end
put(ARGV[1], mine)
return redis.call('HLEN', KEYS[1])
