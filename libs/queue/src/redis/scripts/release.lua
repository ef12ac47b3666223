#!lua flags=allow-oom
-- Gives leases back by their tokens: the same run waits again.
--
-- ARGV  per item: task, spec; spec = token (16 bytes) delay_ms (8) uncounted (1: 0 or 1)
-- Returns a byte per item: 1 ok, 0 unknown, 3 lost.
local OK, UNKNOWN, LOST = '\1', '\0', '\3'
local refused = begin()
if refused then return refused end

local tasks = {}
for i = args, #ARGV, 2 do tasks[#tasks + 1] = ARGV[i] end
local helds, statuses, ended, extras = call('HMGET', HELD, unpack(tasks)), {}, {}, {}
for i, task in ipairs(tasks) do
  local held, status = helds[i], UNKNOWN
  if held then
    local spec = ARGV[args + 2 * i - 1]
    local run, deliveries, token = parts_of_held(held)
    if token == sub(spec, 1, 16) then
      status = OK
      ended[#ended + 1] = task
      local delay, uncounted = parse('>I8B', spec, 17)
      deliveries = char(math.max(0, byte(deliveries) - uncounted))
      local extra = run .. deliveries
      if extra ~= DEFAULT_EXTRA then extras[#extras + 1], extras[#extras + 2] = task, extra end
      tell(RELEASED, task, run, deliveries, wait(task .. sub(held, 1, 5), delay))
    else status = LOST end
  end
  statuses[i] = status
end
with('HDEL', HELD, ended)
with('ZREM', LEASES, ended)
with('HSET', EXTRA, extras)
save_waiting()
return finish({ concat(statuses) })
