-- The terminal end of run n does not count any more: a new budget of attempts begins. Written once.
CREATE TABLE replays (
    task                      BLOB    NOT NULL,
    run                       INTEGER NOT NULL,
    token                     BLOB    NOT NULL, -- of who wrote it
    max_attempts              INTEGER NULL, -- NULL for that of the task
    reason                    TEXT    NOT NULL,
    replayed_at               TEXT    NOT NULL,
    PRIMARY KEY (task, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX replays_replayed_at ON replays (replayed_at, task);
