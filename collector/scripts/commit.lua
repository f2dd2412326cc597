-- Stores report keys, the epoch's running sum and its sequence number, or nothing (docs/protocol.md 10.4).
-- All checks come first and all writes last, since Redis keeps what was written before an error.
-- Input:  KEYS[1] lane    KEYS[2] meta of the epoch    KEYS[3] sum of the epoch    KEYS[4..] buckets
--         ARGV[1] incarnation, 16 bytes    ARGV[2] seq    ARGV[3] running sum
--         ARGV[4] report keys, 32 bytes each    ARGV[5] their checks, 4 bytes each
--         ARGV[6] their buckets, 2 bytes each: 0 is KEYS[4], big-endian
--         ARGV[7] 1 if the caller waits for replicas: then what confirms an earlier write writes, too
-- Output: {'OK'}, {'ALREADY'}, {'SEALED'}, {'LOST'}, {'FULL', room},
--         {'DUP', position, same payload 0 or 1, position, ...}
local lane = redis.call('HMGET', KEYS[1], 'phase', 'count', 'capacity')
local meta = redis.call('HMGET', KEYS[2], 'who', 'seq', 'n')
if not lane[1] or lane[1] == 'damaged' or meta[1] ~= ARGV[1] then
  return {'LOST'}
end
local seq = tonumber(ARGV[2])
local known = tonumber(meta[2])
-- Before the phase: a commit whose reply was lost stays committed whatever happened since.
if seq <= known then
  if ARGV[7] == '1' then
    redis.call('HSET', KEYS[2], 'seq', meta[2])
  end
  return {'ALREADY'}
end
if lane[1] ~= 'open' and lane[1] ~= 'closing' then
  return {'SEALED'}
end
if seq ~= known + 1 then
  return {'LOST'}
end

local n = #ARGV[4] / 32
local ids, checks, buckets = {}, {}, {}
local fresh = {}
local taken = {'DUP'}
for i = 1, n do
  local id = string.sub(ARGV[4], 32 * i - 31, 32 * i)
  local check = string.sub(ARGV[5], 4 * i - 3, 4 * i)
  local high, low = string.byte(ARGV[6], 2 * i - 1, 2 * i)
  local bucket = KEYS[4 + 256 * high + low]
  -- A key twice in one commit would add its vector twice and its name once.
  local stored = fresh[id] or redis.call('HGET', bucket, id)
  if stored then
    taken[#taken + 1] = i - 1
    taken[#taken + 1] = stored == check and 1 or 0
  else
    fresh[id] = check
  end
  ids[i], checks[i], buckets[i] = id, check, bucket
end
if #taken > 1 then
  if ARGV[7] == '1' then
    redis.call('HSET', KEYS[2], 'seq', meta[2])
  end
  return taken
end
local room = tonumber(lane[3]) - tonumber(lane[2])
if n > room then
  return {'FULL', room}
end

for i = 1, n do
  redis.call('HSET', buckets[i], ids[i], checks[i])
end
redis.call('SET', KEYS[3], ARGV[3])
redis.call('HINCRBY', KEYS[1], 'count', n)
redis.call('HSET', KEYS[2], 'seq', ARGV[2], 'n', string.format('%d', tonumber(meta[3]) + n))
return {'OK'}
