-- Reservations: RECORD, the answer, and until it is settled what each charge holds and the charges.

local RECORD = '<c1dI4' -- status (open, expired, settled), end of the lease, length of the answer
local HELD_SIZE = 16    -- charged, mark: see quotaguard/core/ledger.py
local records, found = {}, {}
local added, removed = {}, {} -- leases
local moved, soonest_added = {}, INF -- whose place among the leases is not written yet

-- Fetch those of all operations in one command.
local function fetch(ids)
  local keys = {}
  for i = 1, #ids do keys[i] = base .. '/' .. ids[i] end
  local values = #keys > 0 and call('MGET', unpack(keys)) or {}
  for i = 1, #ids do found[ids[i]] = values[i] end
end

local function record_of(id)
  local r = records[id]
  if r ~= nil then return r end
  local value = found[id]
  if value == nil then value = call('GET', base .. '/' .. id) end
  if not value then
    records[id] = false
    return false
  end
  local status, expires, size, at = read(RECORD, value)
  r = { status = status, expires = expires, answer = string.sub(value, at, at + size - 1),
    charges = {}, dirty = false }
  at = at + size
  local count = (#value - at + 1) / (HELD_SIZE + CHARGE_SIZE)
  if count > 0 then
    r.raw, r.raw_at = value, at + count * HELD_SIZE
    r.charges = read_charges(value, r.raw_at, count)
    for i = 1, count do
      local c = r.charges[i]
      c[CHARGED], c[MARK] = read('<dd', value, at + (i - 1) * HELD_SIZE)
    end
  end
  records[id] = r
  return r
end

local tombstone_ttl = milliseconds(remembered)

local function write_record(id, r)
  local value = pack(RECORD, r.status, r.expires, #r.answer) .. r.answer
  if r.status == 's' then
    call('SET', base .. '/' .. id, value, 'PX', tombstone_ttl)
    return 0
  end
  local held = {}
  for i = 1, #r.charges do
    held[2 * i - 1], held[2 * i] = r.charges[i][CHARGED], r.charges[i][MARK]
  end
  local ttl = math.max(r.expires - now, 0) + math.max(DAY, r.longest or 0)
  local raw = string.sub(r.raw, r.raw_at, r.raw_at + #r.charges * CHARGE_SIZE - 1)
  value = value .. pack_all(held) .. raw
  call('SET', base .. '/' .. id, value, 'PX', milliseconds(ttl))
  return ttl
end

local ending, ending_text

local function open_lease(id, ends)
  if ends ~= ending then ending, ending_text = ends, string.format('%.17g', ends) end
  added[#added + 1] = ending_text
  added[#added + 1] = id
  moved[id] = true
  if ends < soonest_added then soonest_added = ends end
end

local function close_lease(id)
  removed[#removed + 1] = id
  moved[id] = true
end

local function write_books()
  local ttl = 0
  for id, r in pairs(records) do
    if r and r.dirty then
      local kept = write_record(id, r)
      if r.status == 'o' and kept > ttl then ttl = kept end
    end
  end
  for name, o in pairs(owners) do
    if o.dirty then write_owner(name, o) end
  end
  if #added > 0 then
    call('ZADD', KEYS[1], unpack(added))
    if call('PTTL', KEYS[1]) < ttl * 1000 then call('PEXPIRE', KEYS[1], milliseconds(2 * ttl)) end
  end
  if #removed > 0 then call('ZREM', KEYS[1], unpack(removed)) end
end
