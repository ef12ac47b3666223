#!lua flags=allow-oom
-- Takes entries out; of an entry that is in several places, one. The end of a lease that has no record goes as well.
--
-- ARGV  per item: member, spec; spec = last run to take out (4 bytes) take_lease (1: 0 or 1)
-- Returns a byte per item: 1 removed, 2 leased, 0 unknown, 3 newer; and the tokens of the leased ones, one after the other.
local REMOVED_NOW, LEASED, UNKNOWN, NEWER = '\1', '\2', '\0', '\3'
local refused = begin()
if refused then return refused end

local tasks = {}
for i = args, #ARGV, 2 do tasks[#tasks + 1] = task_of(ARGV[i]) end
local helds, statuses, tokens, ended = call('HMGET', HELD, unpack(tasks)), {}, {}, {}
for i, task in ipairs(tasks) do
  local member, spec, held, status = ARGV[args + 2 * i - 2], ARGV[args + 2 * i - 1], helds[i], UNKNOWN
  local up_to = sub(spec, 1, 4)
  if held then
    local run, deliveries, token = parts_of_held(held)
    if run > up_to then status = NEWER
    else
      status = LEASED
      tokens[#tokens + 1] = token
      if byte(spec, 5) == 1 then
        ended[#ended + 1] = task
        tell(REMOVED, task, run, deliveries)
      end
    end
  else
    local place = waits_in(member)
    if place then
      local extra = call('HGET', EXTRA, task) or DEFAULT_EXTRA
      local run = sub(extra, 1, 4)
      if run > up_to then status = NEWER
      else
        status = REMOVED_NOW
        call('ZREM', place, member)
        call('HDEL', EXTRA, task)
        tell(REMOVED, task, run, sub(extra, 5, 5))
      end
    elseif call('ZREM', LEASES, task) == 1 then
      status = REMOVED_NOW
      tell(REMOVED, task, RUN_ONE, NEVER_GIVEN_OUT)
    end
  end
  statuses[i] = status
end
with('HDEL', HELD, ended)
with('ZREM', LEASES, ended)
changed = #groups > 0
return finish({ concat(statuses), concat(tokens) })
