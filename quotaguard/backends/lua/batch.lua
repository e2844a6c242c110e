-- One call: many operations of one shard, in order, an id and a body each, all in one argument, as
-- each costs. Answers with the time and one answer each; with the time alone if it comes too late.

local carry_out = { R = reserve, S = settle, N = renew, X = release, P = peek,
  J = adjust, M = merge }

local answers = { pack('<d', now) }
if now > latest then return answers end
local ids, bodies, known, at = {}, {}, {}, operations
while at <= #batch do
  local id_size, size, body = read('<I4I4', batch, at)
  local id = string.sub(batch, body, body + id_size - 1)
  at = body + id_size + size
  ids[#ids + 1], bodies[#bodies + 1] = id, string.sub(batch, body + id_size, at - 1)
  if id_size > 0 then known[#known + 1] = id end
end
fetch(known)
expire()
leave_overdue()
for i = 1, #ids do
  answers[#answers + 1] = carry_out[string.sub(bodies[i], 1, 1)](ids[i], bodies[i])
end
call_up()
write_books()
write_waiters()
write_summaries()
return answers
