-- leave_incident: an alert is about to be resolved in an incident that several alerts share.
-- KEYS  1 members of the incident
-- ARGV  1 id
-- Returns how many others are still in it: only the last one's resolve is sent.
redis.call('SREM', KEYS[1], ARGV[1])
return redis.call('SCARD', KEYS[1])
