#!lua flags=allow-oom
-- Gives out ready entries: lowest band first, lowest pass first within it. Every so often the other end of the bands comes
-- first, so that no band starves. Takes ended leases back, if allowed, and promotes due entries before it looks.
--
-- ARGV  ttl_ms, promote, reap, max_deliveries, lowest_every, revision and paused as the caller knows them, then a claim per lease wanted: token (16 bytes) worker (16)
-- Returns the grants (member, run, deliveries: 26 bytes each, one after the other, in the order of the claims), the number
-- of entries still ready, ms until the next delayed entry is due (-1: none), the settings that were obeyed: revision, paused.
--
-- Allowed when Redis is out of memory: a queue that cannot be drained would stay full.
local refused = begin()
if refused then return refused end

local ttl, lowest_every = tonumber(ARGV[args]), tonumber(ARGV[args + 4])
configure(tonumber(ARGV[args + 5]), ARGV[args + 6])
local first_claim = args + 7
local wanted = paused == '1' and 0 or #ARGV - first_claim + 1
reap(tonumber(ARGV[args + 2]), tonumber(ARGV[args + 3]))
promote(tonumber(ARGV[args + 1]))

-- member, score, member, score, ...
local taken = {}
local turn = turns + 1 -- of the calls that give something out
if wanted > 0 and lowest_every > 0 and turn % lowest_every == 0 then
  local last = call('ZRANGE', READY, -1, -1, 'WITHSCORES')
  if last[2] then
    local band_start = math.floor(tonumber(last[2]) / PASS_LIMIT) * PASS_LIMIT
    taken = call('ZRANGEBYSCORE', READY, text(band_start), '+inf', 'WITHSCORES', 'LIMIT', 0, wanted)
    local members = {}
    for i = 1, #taken, 2 do members[#members + 1] = taken[i] end
    call('ZREM', READY, unpack(members))
  end
end
if #taken < 2 * wanted then
  local front = call('ZPOPMIN', READY, wanted - #taken / 2)
  for i = 1, #front do taken[#taken + 1] = front[i] end
end

local grants, count = {}, 0
if #taken > 0 then
  local tasks = {}
  for i = 1, #taken, 2 do tasks[#tasks + 1] = task_of(taken[i]) end
  local extras = call('EXISTS', EXTRA) == 1 and call('HMGET', EXTRA, unpack(tasks)) or {}
  local ends, helds, leases, used_extras = text(now + ttl), {}, {}, {}
  local last_score, served_count = {}, {} -- by band
  for i, task in ipairs(tasks) do
    local member, claim, run, deliveries = taken[2 * i - 1], ARGV[first_claim + i - 1], RUN_ONE, '\1'
    local band = byte(member, 17)
    last_score[band], served_count[band] = taken[2 * i], (served_count[band] or 0) + 1
    if extras[i] then
      run, deliveries = sub(extras[i], 1, 4), char(math.min(byte(extras[i], 5) + 1, 255))
      used_extras[#used_extras + 1] = task
    end
    helds[2 * i - 1], helds[2 * i] = task, sub(member, 17, 21) .. run .. deliveries .. sub(claim, 1, 16)
    leases[2 * i - 1], leases[2 * i] = ends, task
    grants[count + 1], grants[count + 2], grants[count + 3] = member, run, deliveries
    count = count + 3
    tell(GRANTED, task, run, deliveries, nil, nil, sub(claim, 17, 32))
  end
  for band, score in pairs(last_score) do served(band, score, served_count[band]) end
  with('HSET', HELD, helds)
  with('ZADD', LEASES, leases)
  with('HDEL', EXTRA, used_extras)
  turns = turn
  prune_fairness(2 * #tasks)
  changed = true
end
return finish({ concat(grants), call('ZCARD', READY), first_of(DELAYED), text(revision), paused })
