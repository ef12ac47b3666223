#!lua flags=allow-oom
-- Reads the numbers of a partition; makes it when it is new.
--
-- Returns seq, ready, delayed, leased, quarantined, the ready member that goes next (empty: none), revision, paused.
local refused = begin()
if refused then return refused end
local next_ready = call('ZRANGE', READY, 0, 0)[1] or ''
return finish({
  text(seq), call('ZCARD', READY), call('ZCARD', DELAYED), call('ZCARD', LEASES), call('ZCARD', QUARANTINE), next_ready,
  text(revision), paused,
})
