-- Shared by all scripts; put between the first line of a script and its body.
--
-- KEYS 1 ready       zset  member -> score = band * 2^48 + pass
--      2 delayed     zset  member -> due, ms
--      3 leases      zset  task   -> end of the lease, ms
--      4 held        hash  task   -> band fairness run deliveries token; only while leased
--      5 extra       hash  task   -> run deliveries; only while waiting, and only if run ~= 1 or deliveries ~= 0
--      6 quarantine  zset  member -> time of the last lease's end, ms
--      7 info        hash  incarnation, deployment, seq, turns; revision and paused, once the queue has settings
--      8 fairness    hash  band fairness -> last pass; band -> virtual time
--      9 journal     stream, one record per call (see record.rs)
--     10 clock       string, ms: tests only; without it time is that of Redis
--
-- member = task (16 bytes) band (1) fairness (4): the same 21 bytes for as long as an entry waits
-- run    = 4 bytes, big-endian: strings of runs compare as their numbers do
-- held   = band (1) fairness (4) run (4) deliveries (1) token (16) = 26 bytes
-- extra  = run (4) deliveries (1) = 5 bytes
--
-- ARGV of a script that writes begins with: candidate for a new incarnation, deployment, calls kept in the journal,
-- channel for announcements, name of the calling engine, name of the partition. `args` is the index of the first of its own.
local READY, DELAYED, LEASES, HELD, EXTRA, QUARANTINE, INFO, FAIRNESS, JOURNAL =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local call, sub, byte, char, concat = redis.call, string.sub, string.byte, string.char, table.concat
local pack, parse = struct.pack, struct.unpack
local args = 7

local PASS_LIMIT = 281474976710656 -- 2^48
local STRIDE = 1000
local RUN_ONE, NEVER_GIVEN_OUT, DEFAULT_EXTRA = '\0\0\0\1', '\0', '\0\0\0\1\0'

-- Transitions as the journal stores them, and what is or-ed to them.
local ENQUEUED, GRANTED, STARTED = 1, 2, 3
local RELEASED, REAPED, QUARANTINED, ADOPTED, REMOVED = 7, 10, 11, 12, 13
local HAS_DUE, HAS_NOTE, HAS_WORKER = 32, 64, 128

local now
if KEYS[10] then
  now = tonumber(call('GET', KEYS[10]))
else
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whole numbers up to 2^53 as text: tostring() would round them.
local function text(number) return string.format('%.0f', number) end
local function task_of(member) return sub(member, 1, 16) end
local function parts_of_held(held) return sub(held, 6, 9), sub(held, 10, 10), sub(held, 11, 26) end

-- A command over a list of at most 1000 items, two arguments each: far below what unpack() can take.
local function with(command, key, list) if #list > 0 then call(command, key, unpack(list)) end end

-- ---------------------------------------------------------------------------------------------------------------- fairness
local passes, virtual_times = {}, {}

local function virtual_time(band)
  local time = virtual_times[band]
  if not time then
    time = tonumber(call('HGET', FAIRNESS, band) or 0)
    virtual_times[band] = time
  end
  return time
end

-- The score of a ready entry: one stride behind the last one of its key, never before the virtual time of its band.
local function next_score(member)
  local key = sub(member, 17, 21) -- band and fairness key
  local band = sub(key, 1, 1)
  local now_served, last = virtual_time(band), passes[key]
  if last == nil then last = tonumber(call('HGET', FAIRNESS, key) or -STRIDE) end
  local pass = math.min(math.max(last + STRIDE, now_served), PASS_LIMIT - 1)
  passes[key] = pass
  return text(byte(band) * PASS_LIMIT + pass)
end

-- `count` entries of a band were given out, the last one with this score. Time moves to its pass, or on by one for each entry
-- but no more than a stride ahead of the pass: else keys never seen before would all stand at the same pass, in front of any
-- key that comes back.
local function served(band, score, count)
  local key, pass = char(band), tonumber(score) - band * PASS_LIMIT
  local before = virtual_time(key)
  local time = math.min(math.max(before, pass, math.min(before + count, pass + STRIDE)), PASS_LIMIT - 1)
  if time > before then
    virtual_times[key] = time
    passes[key] = time
  end
end

-- Forgets keys whose next pass would be the virtual time anyway: a sample per call, so that their number stays within twice
-- of those that matter without ever walking them all.
local PRUNE_FROM = 1024
local function prune_fairness(sample)
  if call('HLEN', FAIRNESS) <= PRUNE_FROM then return end
  local found, stale = call('HRANDFIELD', FAIRNESS, math.min(sample, 1000), 'WITHVALUES'), {}
  for i = 1, #found, 2 do
    local key = found[i]
    if #key == 5 and tonumber(found[i + 1]) + STRIDE <= virtual_time(sub(key, 1, 1)) then stale[#stale + 1] = key end
  end
  with('HDEL', FAIRNESS, stale)
end

local function save_fairness()
  local fields, count = {}, 0
  for key, pass in pairs(passes) do
    fields[#fields + 1] = key
    fields[#fields + 1] = text(pass)
    if #fields == 2000 then with('HSET', FAIRNESS, fields); fields = {} end
  end
  with('HSET', FAIRNESS, fields)
end

-- ----------------------------------------------------------------------------------------------------------------- journal
local groups, group_of = {}, {}

-- Adds an entry. `due` is in ms or nil, `note` is nil or not empty, `worker` says for whom.
local function tell(transition, task, run, deliveries, due, note, worker)
  local shape = transition
  if due then shape = shape + HAS_DUE end
  if note then shape = shape + HAS_NOTE end
  if worker then shape = shape + HAS_WORKER end
  local name = worker and shape .. worker or shape
  local group = group_of[name]
  if not group then
    group = { shape = shape, count = 0, worker = worker or '', size = 0 }
    group_of[name] = group
    groups[#groups + 1] = group
  end
  local size = group.size
  group[size + 1], group[size + 2], group[size + 3] = task, run, deliveries
  size = size + 3
  if due then size = size + 1; group[size] = pack('>I8', due) end
  if note then group[size + 1], group[size + 2] = pack('>I4', #note), note; size = size + 2 end
  group.size, group.count = size, group.count + 1
end

local function save_journal()
  local record = { pack('>BI8', 1, now) }
  for _, group in ipairs(groups) do
    record[#record + 1] = pack('>BI2', group.shape, group.count)
    record[#record + 1] = group.worker
    record[#record + 1] = concat(group)
  end
  call('XADD', JOURNAL, 'MAXLEN', '~', ARGV[3], '*', 'c', concat(record))
end

-- ------------------------------------------------------------------------------------------------------------ begin and end
local incarnation, seq, turns, revision, paused, was_idle, changed, readied

-- Reads the state of the partition; makes it when it is new. Returns an error reply when it is somebody else's.
local function begin()
  local info = call('HMGET', INFO, 'incarnation', 'deployment', 'seq', 'turns', 'revision', 'paused')
  incarnation, seq, turns = info[1], tonumber(info[3] or 0), tonumber(info[4] or 0)
  revision, paused = tonumber(info[5] or 0), info[6] or '0'
  if not incarnation then
    incarnation = ARGV[1]
    call('HSET', INFO, 'incarnation', incarnation, 'deployment', ARGV[2], 'seq', 0)
  elseif info[2] ~= ARGV[2] then
    return redis.error_reply('FOREIGN the partition belongs to deployment ' .. tostring(info[2]))
  end
  was_idle = call('EXISTS', READY) == 0
  changed, readied = false, false
end

-- Applies settings that are newer than those in force. The end of a pause is as if what is ready had become so now.
local function configure(new_revision, new_paused)
  if new_revision <= revision then return end
  revision, paused, changed = new_revision, new_paused, true
  call('HSET', INFO, 'revision', text(revision), 'paused', paused)
  if paused == '0' then was_idle, readied = true, true end
end

-- Writes what is left to write and wraps the reply: { incarnation, 0 for no news, 1 for the journal, 2 for ready entries,
-- reply }
local function finish(reply)
  local ready = readied and call('EXISTS', READY) == 1
  local announce = #groups > 0 or (ready and was_idle)
  save_fairness()
  if #groups > 0 then save_journal() end
  if changed then call('HSET', INFO, 'seq', text(seq + 1), 'turns', text(turns)) end
  if announce then call('PUBLISH', ARGV[4], ARGV[5] .. (ready and ' ready ' or ' news ') .. ARGV[6]) end
  return { incarnation, announce and (ready and 2 or 1) or 0, reply }
end

-- ---------------------------------------------------------------------------------------------------------------- movements
-- Entries collected on their way to ready and delayed, added with one command each.
local to_ready, to_delayed = {}, {}

-- Lets an entry wait; returns when it is due, nil for at once.
local function wait(member, delay)
  changed = true
  if delay > 0 then
    to_delayed[#to_delayed + 1], to_delayed[#to_delayed + 2] = text(now + delay), member
    return now + delay
  end
  readied = true
  to_ready[#to_ready + 1], to_ready[#to_ready + 2] = next_score(member), member
end

local function save_waiting()
  with('ZADD', READY, to_ready)
  with('ZADD', DELAYED, to_delayed)
  to_ready, to_delayed = {}, {}
end

-- Makes at most `limit` entries ready whose time has come.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', DELAYED, '-inf', text(now), 'LIMIT', 0, limit)
  if #due == 0 then return 0 end
  for _, member in ipairs(due) do wait(member, 0) end
  call('ZREM', DELAYED, unpack(due))
  save_waiting()
  return #due
end

-- Takes at most `limit` leases back that have run out: ready after the first delivery, later after a while, in quarantine
-- from the max_deliveries-th on. Returns how many, and how many of them went into quarantine.
local function reap(limit, max_deliveries)
  local ended = call('ZRANGEBYSCORE', LEASES, '-inf', text(now), 'LIMIT', 0, limit)
  if #ended == 0 then return 0, 0 end
  local helds, extras, quarantine = call('HMGET', HELD, unpack(ended)), {}, {}
  for i, task in ipairs(ended) do
    local held = helds[i]
    if held then
      local member, run, deliveries = task .. sub(held, 1, 5), parts_of_held(held)
      extras[#extras + 1], extras[#extras + 2] = task, run .. deliveries
      local times = byte(deliveries)
      if times >= max_deliveries then
        quarantine[#quarantine + 1], quarantine[#quarantine + 2] = text(now), member
        tell(QUARANTINED, task, run, deliveries)
      else
        local delay = times > 1 and math.min(60000, 1000 * 2 ^ (times - 2)) or 0
        tell(REAPED, task, run, deliveries, wait(member, delay))
      end
    end
  end
  call('ZREM', LEASES, unpack(ended))
  call('HDEL', HELD, unpack(ended))
  with('HSET', EXTRA, extras)
  with('ZADD', QUARANTINE, quarantine)
  save_waiting()
  changed = true
  return #ended, #quarantine / 2
end

-- Where an entry waits: the key, and the place as inspect tells it. Nil when it does not wait.
local function waits_in(member)
  if call('ZSCORE', READY, member) then return READY end
  if call('ZSCORE', DELAYED, member) then return DELAYED end
  if call('ZSCORE', QUARANTINE, member) then return QUARANTINE end
end

-- Until a time, in ms: text, '-1' for no time.
local function remaining(score)
  if not score then return '-1' end
  return text(math.max(0, tonumber(score) - now))
end
local function first_of(key) return remaining(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end
