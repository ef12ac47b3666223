-- Settings of queues that have any of their own. More of them become columns that may be NULL, for "not set".
CREATE TABLE queues (
    name         VARCHAR(63)  NOT NULL PRIMARY KEY,
    revision     BIGINT       NOT NULL COMMENT 'grows with every change',
    paused_at    DATETIME(6)  NULL COMMENT 'set while it is paused',
    paused_by    VARCHAR(128) NULL,
    pause_reason TEXT         NULL,
    created_at   DATETIME(6)  NOT NULL,
    updated_at   DATETIME(6)  NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
