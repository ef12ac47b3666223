-- Times are UTC. Compact enums are numbers; libs/store/src/codes.rs says what they mean. Durations are nanoseconds.

-- Submitted, with its whole specification. Only an update of a task that waits changes a row.
CREATE TABLE tasks (
    id                    BINARY(16)   NOT NULL PRIMARY KEY,
    name                  VARCHAR(128) NOT NULL,
    queue                 VARCHAR(63)  NOT NULL,
    priority              SMALLINT     NOT NULL,
    content_type          VARCHAR(128) NOT NULL,
    payload               MEDIUMBLOB   NOT NULL,
    tags                  TEXT         NULL COMMENT 'JSON list; task_tags has the same for search',
    metadata              MEDIUMTEXT   NULL COMMENT 'JSON object',
    run_at                DATETIME(6)  NULL,
    expires_at            DATETIME(6)  NULL,
    timeout_nanos         BIGINT       NULL,
    deadline_nanos        BIGINT       NULL,
    max_attempts          INT          NOT NULL,
    retry                 TEXT         NULL COMMENT 'JSON; NULL for the default backoff',
    idempotency_key       VARCHAR(128) NULL,
    idempotency_policy    SMALLINT     NULL,
    idempotency_ttl_nanos BIGINT       NULL,
    fairness_key          VARCHAR(64)  NULL,
    digest                BINARY(16)   NOT NULL COMMENT 'equal for equal requests',
    handoff               BINARY(16)   NULL COMMENT 'outbox row; unconfirmed while that row exists',
    created_at            DATETIME(6)  NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The outbox: committed and not yet confirmed by the dispatcher. One row for a commit batch.
CREATE TABLE handoffs (
    id      BINARY(16)  NOT NULL PRIMARY KEY,
    made_at DATETIME(6) NOT NULL,
    tasks   MEDIUMBLOB  NOT NULL COMMENT 'ids of 16 bytes each',
    KEY handoffs_made_at (made_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Look again at `at`. Only tasks off the fast path have a row.
CREATE TABLE agenda (
    task  BINARY(16)  NOT NULL PRIMARY KEY,
    at    DATETIME(6) NOT NULL,
    run   INT         NOT NULL COMMENT 'never lowered',
    why   SMALLINT    NOT NULL,
    lane  SMALLINT    NOT NULL COMMENT '0 visited when due, 1 taken by the feeder',
    queue VARCHAR(63) NOT NULL,
    band  SMALLINT    NOT NULL COMMENT '0 is served first',
    KEY agenda_due (lane, at),
    KEY agenda_best (lane, queue, band, at, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Run n began, or its slot was closed so that it cannot begin. Written once.
CREATE TABLE starts (
    task       BINARY(16)  NOT NULL,
    run        INT         NOT NULL,
    kind       SMALLINT    NOT NULL,
    attempt    INT         NOT NULL,
    token      BINARY(16)  NOT NULL,
    worker     BINARY(16)  NULL,
    started_at DATETIME(6) NOT NULL,
    PRIMARY KEY (task, run)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Run n is over. Written once.
CREATE TABLE ends (
    task                      BINARY(16)   NOT NULL,
    run                       INT          NOT NULL,
    kind                      SMALLINT     NOT NULL,
    ended_by                  BINARY(16)   NOT NULL COMMENT 'token of who wrote it',
    attempts_used             INT          NOT NULL,
    next_run_at               DATETIME(6)  NULL,
    result_type               VARCHAR(128) NULL,
    result                    MEDIUMBLOB   NULL,
    failure_kind              VARCHAR(64)  NULL,
    failure_message           TEXT         NULL,
    failure_detail            TEXT         NULL,
    failure_fatal             SMALLINT     NULL,
    failure_retry_after_nanos BIGINT       NULL,
    ended_at                  DATETIME(6)  NOT NULL,
    PRIMARY KEY (task, run),
    KEY ends_by_kind (kind, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- A cancel was asked for while a run was open. The budget is the last replayed run, else 0.
CREATE TABLE cancels (
    task         BINARY(16)  NOT NULL,
    budget       INT         NOT NULL,
    reason       TEXT        NOT NULL,
    requested_at DATETIME(6) NOT NULL,
    grace_nanos  BIGINT      NOT NULL,
    PRIMARY KEY (task, budget)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Signs of life, progress and checkpoint of the newest run that reported: a cache.
CREATE TABLE live (
    task             BINARY(16)   NOT NULL PRIMARY KEY,
    run              INT          NOT NULL COMMENT 'never lowered',
    seen_at          DATETIME(6)  NOT NULL,
    progress_current BIGINT       NULL,
    progress_total   BIGINT       NULL,
    progress_message TEXT         NULL,
    progress_at      DATETIME(6)  NULL,
    checkpoint_type  VARCHAR(128) NULL,
    checkpoint       MEDIUMBLOB   NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE task_tags (
    task BINARY(16)  NOT NULL,
    tag  VARCHAR(64) NOT NULL,
    PRIMARY KEY (task, tag),
    KEY task_tags_by_tag (tag, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Idempotency keys and request ids. They have a life of their own and outlive their tasks.
CREATE TABLE idempotency_keys (
    kind       SMALLINT       NOT NULL,
    name       VARBINARY(128) NOT NULL,
    tasks      MEDIUMBLOB     NOT NULL COMMENT 'id and digest of each task, 32 bytes',
    expires_at DATETIME(6)    NOT NULL,
    PRIMARY KEY (kind, name),
    KEY idempotency_keys_expires_at (expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE workers (
    id            BINARY(16)  NOT NULL PRIMARY KEY,
    seen_at       DATETIME(6) NOT NULL,
    first_seen_at DATETIME(6) NOT NULL,
    stopped       SMALLINT    NOT NULL,
    info          MEDIUMBLOB  NOT NULL,
    KEY workers_seen_at (seen_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE cursors (
    name  VARCHAR(128) NOT NULL PRIMARY KEY,
    value TEXT         NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
