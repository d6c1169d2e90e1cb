-- GCRA on one key, whose value is the moment (microseconds of this server) at which it is rested.
-- In: nanoseconds between two requests, burst, the least that is of use, what is wanted.
-- Out: granted, left, microseconds until `least` would be granted, microseconds until it is rested.
local interval, burst = tonumber(ARGV[1]) / 1000, tonumber(ARGV[2])
local least, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rested = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
-- What is kept has quarters of a microsecond; a request that is due must not wait for one.
local room = math.floor(burst - (rested - now) / interval + 0.001)
if room < least then
  return {0, math.max(room, 0), math.ceil(rested - now - (burst - least) * interval), math.ceil(rested - now)}
end
local granted = math.min(room, want)
rested = rested + granted * interval
-- It lives until it is rested: then it says what an unknown key says.
redis.call('SET', KEYS[1], string.format('%.2f', rested), 'PX', math.ceil((rested - now) / 1000))
return {granted, room - granted, 0, math.ceil(rested - now)}
