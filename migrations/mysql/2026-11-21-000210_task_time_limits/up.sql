-- Limits of tasks, as nanoseconds: until the first start, and between two signs of life of the handler.
ALTER TABLE tasks ADD COLUMN start_timeout_nanos BIGINT NULL, ADD COLUMN heartbeat_timeout_nanos BIGINT NULL;
