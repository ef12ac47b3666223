ALTER TABLE tasks DROP COLUMN heartbeat_timeout_nanos, DROP COLUMN start_timeout_nanos;
