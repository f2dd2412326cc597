-- Creates a lane; one that exists is left alone.
-- Input:  KEYS[1] lane    ARGV[1] capacity, in reports
-- Output: phase of the lane
local phase = redis.call('HGET', KEYS[1], 'phase')
if phase then
  -- Written again for a caller that waits for replicas: they may not have the first one yet.
  redis.call('HSET', KEYS[1], 'phase', phase)
  return phase
end
redis.call('HSET', KEYS[1], 'phase', 'open', 'count', '0', 'capacity', ARGV[1], 'epochs', '0')
return 'open'
