-- The line before the ledger: rule for rule as in quotaguard/backends/line.py and places.py.
--
-- <base>?<id>            one waiter: WAITER, then a SPOT and its charge for each bucket it waits for
-- <base>=<owner><limit>  sorted set, the line of a bucket: MEMBER and id, by the waiter's turn
-- <base>%<owner><limit>  sorted set, if it is shared fairly: where each flow finishes; the line: ''
-- <base>:wanted          hash: what all in the line of a bucket will take of it
-- <base>:patience        sorted set: ids of waiters, by the end of their patience
-- <base>:place           the place of who came last
-- <prefix>!<process>     channel: those of a process's waiters who are to ask again: RING and id
--
-- Lines are written as they change (a waiter that is lost comes back), waiters at the end.

local WAITER = '<ddddc20c8' -- place, back by, deadline, weight, flow, process
local SPOT = '<dddB' -- turn, start, due, whether it stands there
local MEMBER, MEMBER_SIZE = '>dd', 16 -- place, least
local RING = '<dI4' -- seconds, length of the id
local GRACE, EARLIER, HEAD_START, AFTER = 0.25, 0.001, 30, 0.000001

local the_line

-- What it defines costs every call in which somebody waits, and none else.
local function line()
  if the_line then return the_line end
  local freed, freed_keys = {}, {} -- charges on buckets that may have got something back, in order
  local waiters, rings = {}, {}
  local prefix = string.match(base, '^[^{]*')

  local function text_of(number) return string.format('%.17g', number) end

  local function lasts_until(key, time)
    local ttl = math.min(math.max(time - now + 2 * GRACE, 0) + grace, LONGEST_TTL) * 1000
    if call('PTTL', key) < ttl then call('PEXPIRE', key, string.format('%.0f', math.ceil(ttl))) end
  end

  local function free(c)
    local key = c[OWNER] .. c[LIMIT]
    if not freed[key] then
      freed[key] = c
      freed_keys[#freed_keys + 1] = key
    end
  end

  local function waiter_of(id)
    local w = waiters[id]
    if w ~= nil then return w end
    local value = call('GET', base .. '?' .. id)
    if not value then
      waiters[id] = false
      return false
    end
    w = { id = id, spots = {}, keys = {} }
    local at
    w.place, w.back_by, w.deadline, w.weight, w.flow, w.process, at = read(WAITER, value)
    while at <= #value do
      local spot = {}
      spot.turn, spot.start, spot.due, spot.standing, at = read(SPOT, value, at)
      spot.standing = spot.standing == 1
      spot.raw = string.sub(value, at, at + CHARGE_SIZE - 1)
      spot.charge = read_charges(value, at, 1)[1]
      at = at + CHARGE_SIZE
      local key = spot.charge[OWNER] .. spot.charge[LIMIT]
      w.spots[key] = spot
      w.keys[#w.keys + 1] = key
    end
    waiters[id] = w
    return w
  end

  local function write_waiters()
    for id, w in pairs(waiters) do
      if w and w.dirty then
        local parts = { pack(WAITER, w.place, w.back_by, w.deadline, w.weight, w.flow, w.process) }
        for i = 1, #w.keys do
          local spot = w.spots[w.keys[i]]
          parts[#parts + 1] = pack(SPOT, spot.turn, spot.start, spot.due, spot.standing and 1 or 0)
          parts[#parts + 1] = spot.raw
        end
        call('SET', base .. '?' .. id, table.concat(parts), 'PX', milliseconds(w.deadline - now + 2 * GRACE))
      end
    end
    for process, told in pairs(rings) do call('PUBLISH', prefix .. '!' .. process, table.concat(told)) end
  end

  local function member(w, spot)
    return pack(MEMBER, w.place, spot.charge[LEAST]) .. w.id
  end

  local function wants(key, change)
    local value = call('HGET', base .. ':wanted', key)
    local total = value and tonumber(value) or 0
    if change then call('HSET', base .. ':wanted', key, text_of(total + change)) end
    return total
  end

  local function stand(w, key, spot)
    local line = base .. '=' .. key
    call('ZADD', line, text_of(spot.turn), member(w, spot))
    wants(key, spot.charge[LEAST])
    spot.standing = true
    local o = owner_of(spot.charge[OWNER])
    o.waited, o.dirty = math.max(o.waited, w.deadline + GRACE), true
    lasts_until(line, w.deadline)
    lasts_until(base .. ':wanted', w.deadline)
  end

  local function step_out(w, key, spot)
    local line = base .. '=' .. key
    local there = call('ZREM', line, member(w, spot)) == 1
    spot.standing, w.dirty = false, true
    if call('EXISTS', line) == 0 then
      call('HDEL', base .. ':wanted', key)
      call('DEL', base .. '%' .. key)
    elseif there then
      wants(key, -spot.charge[LEAST])
    end
  end

  local function step_aside(w)
    for i = 1, #w.keys do
      local key = w.keys[i]
      local spot = w.spots[key]
      if spot.standing then
        step_out(w, key, spot)
        free(spot.charge)
      end
    end
  end

  -- The waiter at this place of a line, from 0; who is not known any more is taken out.
  local function nth(key, at)
    local line = base .. '=' .. key
    while true do
      local found = call('ZRANGE', line, at, at)[1]
      if not found then return nil end
      local w = waiter_of(string.sub(found, MEMBER_SIZE + 1))
      local spot = w and w.spots[key]
      if spot and spot.standing and member(w, spot) == found then return w, spot end
      call('ZREM', line, found)
      local _, least = read(MEMBER, found)
      wants(key, -least)
    end
  end

  local function wanted(key, turn, place)
    local line = base .. '=' .. key
    local last = call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
    if not last[1] then return 0 end
    local score = tonumber(last[2])
    if score < turn or score == turn and read(MEMBER, last[1]) < place then return wants(key) end
    local sum, found = 0, call('ZRANGEBYSCORE', line, '-inf', text_of(turn), 'WITHSCORES')
    for i = 1, #found, 2 do
      local came, least = read(MEMBER, found[i])
      if tonumber(found[i + 1]) < turn or came < place then sum = sum + least end
    end
    return sum
  end

  -- Start-time fair queueing: where a flow's next call starts, where it finishes, what was served.

  local function start_of_flow(key, flow)
    local flows = base .. '%' .. key
    local served, own = call('ZSCORE', flows, ''), call('ZSCORE', flows, flow)
    return math.max(served and tonumber(served) or 0, own and tonumber(own) or 0)
  end

  local function finish(key, flow, at, until_then)
    if call('EXISTS', base .. '=' .. key) == 0 then return end
    local flows = base .. '%' .. key
    call('ZADD', flows, text_of(at), flow)
    lasts_until(flows, until_then)
  end

  local function served(key, start)
    if start <= start_of_flow(key, '') or call('EXISTS', base .. '=' .. key) == 0 then return end
    local flows = base .. '%' .. key
    call('ZADD', flows, text_of(start), '')
    call('ZREMRANGEBYSCORE', flows, '-inf', '(' .. text_of(start))
    lasts_until(flows, now)
  end

  -- Let it go. Where its flow was not served, the next call of it may start so much earlier.
  local function leave(w, by)
    for i = 1, #w.keys do
      local key = w.keys[i]
      local spot = w.spots[key]
      if spot.standing and spot.charge[KIND] % 2 == FAIR and not by[key] then
        local start = start_of_flow(key, w.flow) - spot.charge[LEAST] / w.weight
        finish(key, w.flow, start, w.deadline)
      end
    end
    step_aside(w)
    waiters[w.id] = false
    call('DEL', base .. '?' .. w.id)
    call('ZREM', base .. ':patience', w.id)
  end

  local function leave_overdue()
    local patience = base .. ':patience'
    local dead = call('ZRANGEBYSCORE', patience, '-inf', '(' .. text_of(now - GRACE), 'LIMIT', 0, 100)
    for i = 1, #dead do
      local w = waiter_of(dead[i])
      if w then leave(w, {}) else call('ZREM', patience, dead[i]) end
    end
  end

  local last_place
  local function next_place()
    last_place = last_place or tonumber(call('GET', base .. ':place') or 0)
    return math.max(now, last_place + AFTER)
  end

  local function turn_of(who, key, c, place)
    if c[KIND] % 2 ~= FAIR then return place - who.priority * HEAD_START, 0 end
    local start = start_of_flow(key, who.flow)
    local lead = c[STOP] == 0 and c[RATE] * HEAD_START or 0
    return start - who.priority * (lead > 0 and lead or c[CEILING]), start
  end

  -- What those whose turn comes before a call's will take of its buckets.
  local function those_ahead(id, who, waiter, candidates)
    local ahead, place = {}, waiter and waiter.place
    for i = 1, #candidates do
      for j = 1, #candidates[i] do
        local c = candidates[i][j]
        local key = c[OWNER] .. c[LIMIT]
        if not ahead[key] and owner_of(c[OWNER]).waited > now then
          local first = nth(key, 0)
          while first and first.id ~= id and first.back_by + GRACE < now do
            step_aside(first)
            first = nth(key, 0)
          end
          local spot = waiter and waiter.spots[key]
          place = place or next_place()
          ahead[key] = wanted(key, spot and spot.turn or turn_of(who, key, c, place), place)
        end
      end
    end
    return ahead
  end

  -- A call is admitted, from the line or past it: fair lines keep count of it.
  local function serve(who, waiter, charges)
    local by = {}
    for i = 1, #charges do
      local c = charges[i]
      if c[KIND] % 2 == FAIR then
        local key = c[OWNER] .. c[LIMIT]
        local spot = waiter and waiter.spots[key]
        local start = spot and spot.start or start_of_flow(key, who.flow)
        served(key, start)
        if not spot then finish(key, who.flow, start + c[LEAST] / who.weight, now) end
        by[key] = true
      end
    end
    if waiter then leave(waiter, by) end
  end

  local function next_expiry()
    local at = 0
    while true do
      local first = call('ZRANGE', KEYS[1], at, at, 'WITHSCORES')
      if not first[1] then return soonest_added end
      if not moved[first[1]] then return math.min(tonumber(first[2]), soonest_added) end
      at = at + 1
    end
  end

  local function due_of(w)
    local due = 0
    for _, spot in pairs(w.spots) do
      if spot.standing and spot.due > due then due = spot.due end
    end
    return due
  end

  local function ask_again(w, first)
    local due = due_of(w)
    if first then due = math.min(due, next_expiry()) end
    return math.max(due, now)
  end

  -- Stand in line for what is short; who stood already keeps its place. Answers with the seconds to
  -- the time to ask again, and whether it is the first in a line.
  local function join(id, who, w, charges, short, op, raw_at, patience)
    if w then
      step_aside(w)
    else
      w = { id = id, place = next_place(), spots = {}, keys = {}, weight = who.weight, flow = who.flow,
        process = who.process }
      waiters[id], last_place = w, w.place
      call('SET', base .. ':place', text_of(w.place), 'PX', milliseconds(patience + 2 * GRACE))
    end
    w.deadline, w.dirty = now + patience, true
    call('ZADD', base .. ':patience', text_of(w.deadline), id)
    lasts_until(base .. ':patience', w.deadline)
    local first = false
    for i = 1, #short, 3 do
      local c = charges[short[i] + 1]
      local key = c[OWNER] .. c[LIMIT]
      local spot = w.spots[key]
      local known = spot ~= nil
      if not known then
        spot = {}
        spot.turn, spot.start = turn_of(who, key, c, w.place)
        w.spots[key] = spot
        w.keys[#w.keys + 1] = key
      end
      local at = raw_at + short[i] * CHARGE_SIZE
      spot.charge, spot.raw = c, string.sub(op, at, at + CHARGE_SIZE - 1)
      spot.due = now + short[i + 2]
      stand(w, key, spot)
      if not known and c[KIND] % 2 == FAIR then
        finish(key, who.flow, spot.start + c[LEAST] / who.weight, w.deadline)
      end
      first = first or nth(key, 0).id == id
    end
    w.back_by = ask_again(w, first)
    return w.back_by - now, first and 1 or 0
  end

  local function ring(w, again)
    local told = rings[w.process] or {}
    rings[w.process] = told
    told[#told + 1] = pack(RING, again - now, #w.id) .. w.id
  end

  -- A bucket got something back, or lost somebody who waited: tell whom that lets in, and the next in
  -- line if it has to wait less than it was told.
  local function call_up_line(key, c)
    local drained, at = advance(c, (bucket_of(c)))
    local before, first, index = 0, true, 0
    local w, spot = nth(key, index)
    while w do
      if w.back_by + GRACE < now then
        step_aside(w)
      else
        local least = spot.charge[LEAST]
        local seconds = wait(c, drained, at, least, before)
        spot.due, w.dirty = now + seconds, true
        if seconds <= 0 and due_of(w) > now then
          step_out(w, key, spot) -- there is room for it here, but not elsewhere
        else
          local again = ask_again(w, first)
          if again < w.back_by - EARLIER then
            w.back_by = again
            ring(w, again)
          end
          -- those behind it are told when it is admitted, unless another bucket keeps it
          if seconds > 0 and due_of(w) <= spot.due + EARLIER then return end
          before, first, index = before + least, false, index + 1
        end
      end
      w, spot = nth(key, index)
    end
  end

  local function call_up()
    local i = 1
    while freed_keys[i] do -- who is found dead on the way frees more
      local key = freed_keys[i]
      if owner_of(freed[key][OWNER]).waited > now then call_up_line(key, freed[key]) end
      i = i + 1
    end
  end

  the_line = { free = free, waiter_of = waiter_of, leave = leave, leave_overdue = leave_overdue,
    those_ahead = those_ahead, serve = serve, join = join, call_up = call_up,
    write_waiters = write_waiters }
  return the_line
end
