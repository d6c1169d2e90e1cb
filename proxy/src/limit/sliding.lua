-- A window in fifteen parts on one key, whose fields are parts of time (of this server) and what was counted in each.
-- In: microseconds of a part, requests in a window, the least that is of use, what is wanted.
-- Out: granted, left, microseconds until `least` would be granted, microseconds until all is forgotten.
local part, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local newest = math.floor(now / part)
local counted, used, last = {}, 0, newest
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local of = tonumber(all[i])
  if of < newest - 15 then
    redis.call('HDEL', KEYS[1], all[i])
  else
    counted[of] = tonumber(all[i + 1])
    used = used + counted[of]
    last = math.max(last, of)
  end
end
local room = most - used
if room < least then
  local freed, of = 0, newest - 16
  while room + freed < least and of < last do
    of = of + 1
    freed = freed + (counted[of] or 0)
  end
  return {0, math.max(room, 0), math.ceil((of + 16) * part - now), math.ceil((last + 16) * part - now)}
end
local granted = math.min(room, want)
redis.call('HINCRBY', KEYS[1], string.format('%.0f', newest), granted)
redis.call('PEXPIRE', KEYS[1], math.ceil(16 * part / 1000))
return {granted, room - granted, 0, math.ceil((last + 16) * part - now)}
