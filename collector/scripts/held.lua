-- Looks a report up for a caller that waits for replicas: what is confirmed writes.
-- Input:  KEYS[1] lane    KEYS[2] bucket    ARGV[1] report key
-- Output: the check of the report, or nothing
local check = redis.call('HGET', KEYS[2], ARGV[1])
local phase = redis.call('HGET', KEYS[1], 'phase')
if check and phase then
  redis.call('HSET', KEYS[1], 'phase', phase)
end
return check
