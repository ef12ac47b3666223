#!lua flags=allow-oom
-- Extends leases by their tokens. One that Redis does not know, or knows only as waiting with a run not above, is made again.
--
-- ARGV  1 to journal the starts, else 0; then per item: member, spec
--       spec = run (4 bytes) deliveries (1) token (16) ttl_ms (8)
-- Returns a byte per item: 1 ok, 2 adopted, 3 lost.
local OK, ADOPTED_AGAIN, LOST = '\1', '\2', '\3'
local refused = begin()
if refused then return refused end

local starts = ARGV[args] == '1'
local tasks = {}
for i = args + 1, #ARGV, 2 do tasks[#tasks + 1] = task_of(ARGV[i]) end
local helds, statuses, new_helds, leases = call('HMGET', HELD, unpack(tasks)), {}, {}, {}

for i, task in ipairs(tasks) do
  local member, spec, held, status = ARGV[args + 2 * i - 1], ARGV[args + 2 * i], helds[i], LOST
  local run, deliveries, token = sub(spec, 1, 4), sub(spec, 5, 5), sub(spec, 6, 21)
  if held then
    local held_run, held_deliveries, held_token = parts_of_held(held)
    if held_token == token then
      status = OK
      if held_run < run then
        new_helds[#new_helds + 1], new_helds[#new_helds + 2] = task, sub(held, 1, 5) .. run .. sub(held, 10, 26)
      else run = held_run end
      if starts then tell(STARTED, task, run, held_deliveries) end
    end
  else
    local place = waits_in(member)
    local extra = place and call('HGET', EXTRA, task) or DEFAULT_EXTRA
    if not place or sub(extra, 1, 4) <= run then
      status = ADOPTED_AGAIN
      if place then
        call('ZREM', place, member)
        call('HDEL', EXTRA, task)
      end
      deliveries = char(math.max(byte(deliveries), place and byte(extra, 5) or 0, 1))
      new_helds[#new_helds + 1], new_helds[#new_helds + 2] = task, sub(member, 17, 21) .. run .. deliveries .. token
      tell(ADOPTED, task, run, deliveries)
    end
  end
  if status ~= LOST then
    leases[#leases + 1], leases[#leases + 2] = text(now + parse('>I8', spec, 22)), task
    changed = true
  end
  statuses[i] = status
end

with('HSET', HELD, new_helds)
with('ZADD', LEASES, leases)
return finish({ concat(statuses) })
