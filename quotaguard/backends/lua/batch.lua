-- One call: many operations of one shard, in order, an id and a body each. Answers with the time and
-- one answer each; with the time alone if it comes too late.

local carry_out = { R = reserve, S = settle, N = renew, X = release, P = peek,
  J = adjust, M = merge }

local answers = { pack('<d', now) }
if now > latest then return answers end
local ids = {}
for i = 4, #ARGV, 2 do
  if #ARGV[i] > 0 then ids[#ids + 1] = ARGV[i] end
end
fetch(ids)
expire()
for i = 4, #ARGV, 2 do
  answers[#answers + 1] = carry_out[string.sub(ARGV[i + 1], 1, 1)](ARGV[i], ARGV[i + 1])
end
write_books()
write_summaries()
return answers
