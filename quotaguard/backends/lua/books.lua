-- The books of one shard: read once, changed in memory, written back once at the end of a batch.
--
-- KEYS[1]  <base>:leases   sorted set: ids of open reservations, by the time their lease ends
--          <base>:<owner>  all buckets of one owner in one value: OWNER, then a BUCKET for each
--          <base>/<id>     one reservation (records.lua)
--          <base>~<name>   a summary that processes share (merge.lua)
--          line.lua tells of those who wait
--
-- Numbers are packed doubles, so nothing is rounded. Nothing is written before the whole batch has
-- been worked out, so an error leaves the books as they were. All keys are in KEYS[1]'s slot.

local call, pack, read = redis.call, struct.pack, struct.unpack
local base = string.sub(KEYS[1], 1, -8)
local batch = ARGV[1]
-- A test's clock or NaN; when the caller has given up; seconds for which a settled id is kept.
local now, latest, remembered, operations = read('<ddd', batch)
local grace = 0
if now == now then
  grace = 86400 -- a key's time to live runs by the server's clock all the same
else
  local time = call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
end

local INF = math.huge
local DAY = 86400
local LONGEST_TTL = 34560000 -- 400 days
local HEADER = '<dd'       -- of an owner: somebody may wait until, something is held until
local BUCKET_SIZE = 40     -- limit (8 characters), then:
local BUCKET = '<dddd'     -- drained, at, held, full at
local DRAINED, SINCE, HOLDS, FULL = 1, 2, 3, 4

local owners = {}

local function doubles(count)
  return '<' .. string.rep('d', count)
end

local function pack_all(numbers)
  return pack(doubles(#numbers), unpack(numbers))
end

local function owner_of(name)
  local o = owners[name]
  if o then return o end
  local value = call('GET', base .. ':' .. name)
  if value then
    local waited, held_until = read(HEADER, value)
    local buckets = {}
    for at = 17, #value, BUCKET_SIZE do
      buckets[string.sub(value, at, at + 7)] = { read(BUCKET, value, at + 8) }
    end
    o = { buckets = buckets, waited = waited, held_until = held_until, stored = true, dirty = false }
  else
    o = { buckets = {}, waited = 0, held_until = 0, stored = false, dirty = false }
  end
  owners[name] = o
  return o
end

local lifetime, lifetime_text -- most of a batch live equally long

local function milliseconds(ttl)
  if ttl ~= lifetime then
    lifetime = ttl
    ttl = math.min(ttl + grace, LONGEST_TTL)
    lifetime_text = string.format('%.0f', math.max(1, math.ceil(ttl * 1000)))
  end
  return lifetime_text
end

local function write_owner(name, o)
  local parts, count, held, ttl = { '' }, 1, false, 0
  for limit, b in pairs(o.buckets) do
    local full = b[FULL]
    if b[HOLDS] < 1e-9 then b[HOLDS] = 0 end -- what sums of doubles leave behind
    if b[HOLDS] > 0 or (b[DRAINED] > 0 and full > now - DAY) then
      parts[count + 1] = limit
      parts[count + 2] = pack(BUCKET, b[DRAINED], b[SINCE], b[HOLDS], full)
      count = count + 2
      if b[DRAINED] > 0 and full - now > ttl then ttl = full - now end
      held = held or b[HOLDS] > 0
    end
  end
  local waited = o.waited > now
  if waited then ttl = math.max(ttl, o.waited - now) end
  if count == 1 and not waited then
    if o.stored then call('DEL', base .. ':' .. name) end
    return
  end
  if not held then
    o.held_until = 0
  elseif o.held_until - now > ttl then
    ttl = o.held_until - now
  end
  parts[1] = pack(HEADER, o.waited, o.held_until)
  call('SET', base .. ':' .. name, table.concat(parts), 'PX', milliseconds(ttl))
end

