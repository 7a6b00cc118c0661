-- remembered_changes: what is remembered for who is paged.
-- KEYS  1 remembered changes
-- Returns services and their changes as JSON, flat.
return redis.call('HGETALL', KEYS[1])
