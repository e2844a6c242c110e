-- Token bucket, calendar window and slots of calls in flight, rule for rule as in quotaguard/core/bucket.py.

-- A charge is an array. These are worked out here:
local CHARGED, MARK, GRANTED, BUCKET_OF, HOLDER, LEVEL, AT = 1, 2, 3, 4, 5, 6, 7
-- and these are read from CHARGE. A rule is four doubles: rate, 0, 0, 0 of a bucket; of a window the
-- boundaries around the present one: start of the one before, start, end, end of the next.
local OWNER, LIMIT, KIND, AMOUNT, LEAST, KEEP, CEILING, SLACK = 8, 9, 10, 11, 12, 13, 14, 15
local RATE, START, STOP, NEXT = 16, 17, 18, 19
local CHARGE, CHARGE_SIZE = '<c20c8Bddddddddd', 101
local FAIR, IN_FLIGHT = 1, 2 -- kinds, which add up
local ANY_MOMENT = 1 -- seconds to say where nobody can know: a call may end at any moment

local function read_charges(text, at, count)
  local charges = {}
  for i = 1, count do
    charges[i] = { 0, 0, 0, false, false, 0, 0, read(CHARGE, text, at) }
    at = at + CHARGE_SIZE
  end
  return charges
end

local function bucket_of(c)
  local o = owner_of(c[OWNER])
  local b = o.buckets[c[LIMIT]]
  if not b then
    b = { 0, 0, 0, 0 }
    o.buckets[c[LIMIT]] = b
  end
  return b, o
end

-- Whether the boundaries that came along tell the present window. A window's RATE is the start of
-- the one before.
local function in_reach(charges)
  for i = 1, #charges do
    local c = charges[i]
    if c[STOP] > 0 and (now < c[RATE] or now >= c[NEXT]) then return false end
  end
  return true
end

local function start_of(c)
  return now < c[START] and c[RATE] or now < c[STOP] and c[START] or c[STOP]
end

local function end_of(c, when)
  return when < c[START] and c[START] or when < c[STOP] and c[STOP] or c[NEXT]
end

-- Whether leases may have ended that still hold something: slots then come back with each of them, or
-- they would come back twice.
local some_are_due = false

local function advance(c, b)
  local drained, at = b[DRAINED], b[SINCE]
  if c[STOP] > 0 then
    local start = start_of(c)
    if start > at then return 0, start end
    return drained, at
  end
  if c[KIND] >= IN_FLIGHT then
    if drained > 0 and (now < at or some_are_due) then return drained, at end
    return 0, now
  end
  if now <= at then return drained, at end
  drained = drained - (now - at) * c[RATE]
  if drained < 0 then drained = 0 end
  return drained, now
end

local function room(c, drained)
  local amount = c[AMOUNT]
  if amount <= 0 then return 0 end
  local free = c[CEILING] - drained
  if c[LEAST] > free + c[SLACK] then return nil end
  if amount <= free + c[SLACK] then return amount end
  return math.max(c[LEAST], free)
end

-- If those before draw `ahead`. Beyond the next window we know no boundaries: as long as that one.
local function wait(c, drained, at, least, ahead)
  if least > c[CEILING] + c[SLACK] then return INF end
  local excess = drained + ahead + least - c[CEILING]
  if excess <= c[SLACK] then return 0 end
  if c[STOP] > 0 then
    local stop, taken = end_of(c, math.max(now, at)), ahead + least
    while taken > c[CEILING] + c[SLACK] and c[CEILING] > 0 do
      taken = taken - c[CEILING]
      stop = stop < c[NEXT] and end_of(c, stop) or stop + c[NEXT] - c[STOP]
    end
    return math.max(0, stop - now)
  end
  if c[KIND] >= IN_FLIGHT then return math.max(at - now, ANY_MOMENT) end
  if c[RATE] <= 0 then return INF end
  return excess / c[RATE] + math.max(0, at - now)
end

-- What a past window was charged is not given back to the present one.
local function correct(c, drained, at, change, mark)
  if change < 0 and c[STOP] > 0 and mark < at then return drained end
  drained = drained + change
  return drained > 0 and drained or 0
end

local function put(c, b, o, drained, at)
  o.dirty = true
  b[DRAINED] = drained
  if drained <= 0 then
    b[SINCE], b[FULL] = 0, 0
    return
  end
  b[SINCE] = at
  if c[KIND] >= IN_FLIGHT then
    b[FULL] = at
  elseif c[STOP] > 0 then
    b[FULL] = math.max(b[FULL], end_of(c, at))
  else
    b[FULL] = c[RATE] > 0 and at + drained / c[RATE] or INF
  end
end
