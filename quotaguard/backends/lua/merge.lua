-- Add to summaries that many processes share: rule for rule as in quotaguard/core/summary.py.
--
-- <base>~<name>  one summary: a BIN for each number of its weights
--
-- What is stored there is checked: whoever wrote something else costs a summary, not a call.

local BIN, BIN_SIZE = '<hd', 10
local MOST_BINS, FORGOTTEN = 1024, 0.02

local function merge(_, op)
  local function add(weights, most, text, at, count)
    for _ = 1, count do
      local bin, weight
      bin, weight, at = read(BIN, text, at)
      if weight > 0 then weights[bin] = (weights[bin] or 0) + math.min(weight, most) end
    end
    return at
  end

  local function fade(weights, most)
    while true do
      local total, count = 0, 0
      for _, weight in pairs(weights) do total, count = total + weight, count + 1 end
      if total <= most and count <= MOST_BINS then return weights end
      local halved = {}
      for bin, weight in pairs(weights) do
        if weight / 2 >= FORGOTTEN then halved[bin] = weight / 2 end
      end
      weights = halved
    end
  end

  local function summary_of(name, most)
    local weights, value = {}, redis.pcall('GET', base .. '~' .. name)
    if type(value) == 'string' and #value % BIN_SIZE == 0 and #value <= MOST_BINS * BIN_SIZE then
      add(weights, most, value, 1, #value / BIN_SIZE)
    end
    return weights
  end

  local function pack_weights(weights)
    local parts = {}
    for bin, weight in pairs(weights) do parts[#parts + 1] = pack(BIN, bin, weight) end
    return table.concat(parts), #parts
  end

  local said = { 'M' }
  local count, kept, at = read('<I2d', op, 2)
  for i = 1, count do
    local name, most, size
    name, most, size, at = read('<c20dI2', op, at)
    local weights = summary_of(name, most)
    at = add(weights, most, op, at, size)
    local packed, bins = pack_weights(fade(weights, most))
    if size > 0 then call('SET', base .. '~' .. name, packed, 'PX', milliseconds(kept)) end
    said[i + 1] = pack('<I2', bins) .. packed
  end
  return table.concat(said)
end
