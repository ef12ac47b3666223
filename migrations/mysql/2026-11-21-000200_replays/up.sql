-- The terminal end of run n does not count any more: a new budget of attempts begins. Written once.
CREATE TABLE replays (
    task         BINARY(16)  NOT NULL,
    run          INT         NOT NULL,
    token        BINARY(16)  NOT NULL COMMENT 'of who wrote it',
    max_attempts INT         NULL COMMENT 'NULL for that of the task',
    reason       TEXT        NOT NULL,
    replayed_at  DATETIME(6) NOT NULL,
    PRIMARY KEY (task, run),
    KEY replays_replayed_at (replayed_at, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
