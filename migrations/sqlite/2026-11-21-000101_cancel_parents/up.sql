-- The task that started this one; NULL for those that a client started.
ALTER TABLE tasks ADD COLUMN parent BLOB NULL;
