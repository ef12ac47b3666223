-- Settings of queues that have any of their own. More of them become columns that may be NULL, for "not set".
CREATE TABLE queues (
    name         TEXT    NOT NULL PRIMARY KEY,
    revision     INTEGER NOT NULL, -- grows with every change
    paused_at    TEXT    NULL, -- set while it is paused
    paused_by    TEXT    NULL,
    pause_reason TEXT    NULL,
    created_at   TEXT    NOT NULL,
    updated_at   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
