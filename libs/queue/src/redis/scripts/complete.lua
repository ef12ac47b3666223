#!lua flags=allow-oom
-- Ends leases by their tokens.
--
-- ARGV  per item: task, spec; spec = token (16 bytes) transition (1) note (the rest)
-- Returns a byte per item: 1 ok, 0 unknown, 3 lost.
local OK, UNKNOWN, LOST = '\1', '\0', '\3'
local refused = begin()
if refused then return refused end

local tasks = {}
for i = args, #ARGV, 2 do tasks[#tasks + 1] = ARGV[i] end
local helds, statuses, ended = call('HMGET', HELD, unpack(tasks)), {}, {}
for i, task in ipairs(tasks) do
  local held, status = helds[i], UNKNOWN
  if held then
    local spec = ARGV[args + 2 * i - 1]
    local run, deliveries, token = parts_of_held(held)
    if token == sub(spec, 1, 16) then
      status = OK
      ended[#ended + 1] = task
      tell(byte(spec, 17), task, run, deliveries, nil, #spec > 17 and sub(spec, 18) or nil)
    else status = LOST end
  end
  statuses[i] = status
end
with('HDEL', HELD, ended)
with('ZREM', LEASES, ended)
changed = #ended > 0
return finish({ concat(statuses) })
