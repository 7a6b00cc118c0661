-- gather: the triggers that wait in a stretch of a queue, by service and rank; each is put down as its service's member.
-- KEYS  1 queue
-- ARGV  1 first  2 last (places in the queue, from 0)  3 rank step  4 how many alerts to show of each service
--       5 prefix of records  6 prefix of members
-- Returns {how many sends were looked at, per service and rank 4: service, rank, how many, alerts (JSON) of the first}.
-- What resolves, repeats or is of our own is nobody's member.
local record_prefix, members_prefix = ARGV[5], ARGV[6]
local step, most_shown = tonumber(ARGV[3]), tonumber(ARGV[4])
local found = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')
local groups, order, members, shown = {}, {}, {}, {}
for i = 1, #found, 2 do
  local service, id = string.match(found[i], '^[^\t]*\t([^\t]*)\t(.*)$')
  local rank = math.floor(tonumber(found[i + 1]) / step)
  local is_ours = id == nil or string.match(id, '^digest:') or string.match(id, '^alertrouter:')
  if not is_ours and rank ~= 1 and rank ~= 5 then
    local name = service .. '\t' .. rank
    local group = groups[name]
    if not group then
      group = {service, rank, 0, {}}
      groups[name] = group
      order[#order + 1] = group
    end
    group[3] = group[3] + 1
    if (shown[service] or 0) < most_shown then
      shown[service] = (shown[service] or 0) + 1
      group[4][#group[4] + 1] = redis.call('HGET', record_prefix .. id, 'alert') or '{}'
    end
    members[service] = members[service] or {}
    table.insert(members[service], id)
  end
end
for service, ids in pairs(members) do redis.call('SADD', members_prefix .. service, unpack(ids)) end
return {#found / 2, unpack(order)}
