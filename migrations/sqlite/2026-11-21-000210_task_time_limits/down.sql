ALTER TABLE tasks DROP COLUMN heartbeat_timeout_nanos;
ALTER TABLE tasks DROP COLUMN start_timeout_nanos;
