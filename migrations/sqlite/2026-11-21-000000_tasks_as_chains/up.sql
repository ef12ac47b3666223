-- The twin of the MySQL schema of the same version. Times are UTC, as text that sorts. Compact enums are numbers; libs/store/src/codes.rs says what they mean. Durations are nanoseconds.

-- Submitted, with its whole specification. Only an update of a task that waits changes a row.
CREATE TABLE tasks (
    id                        BLOB    NOT NULL PRIMARY KEY,
    name                      TEXT    NOT NULL,
    queue                     TEXT    NOT NULL,
    priority                  INTEGER NOT NULL,
    content_type              TEXT    NOT NULL,
    payload                   BLOB    NOT NULL,
    tags                      TEXT    NULL, -- JSON list; task_tags has the same for search
    metadata                  TEXT    NULL, -- JSON object
    run_at                    TEXT    NULL,
    expires_at                TEXT    NULL,
    timeout_nanos             INTEGER NULL,
    deadline_nanos            INTEGER NULL,
    max_attempts              INTEGER NOT NULL,
    retry                     TEXT    NULL, -- JSON; NULL for the default backoff
    idempotency_key           TEXT    NULL,
    idempotency_policy        INTEGER NULL,
    idempotency_ttl_nanos     INTEGER NULL,
    fairness_key              TEXT    NULL,
    digest                    BLOB    NOT NULL, -- equal for equal requests
    handoff                   BLOB    NULL, -- outbox row; unconfirmed while that row exists
    created_at                TEXT    NOT NULL
) STRICT;

-- The outbox: committed and not yet confirmed by the dispatcher. One row for a commit batch.
CREATE TABLE handoffs (
    id                        BLOB    NOT NULL PRIMARY KEY,
    made_at                   TEXT    NOT NULL,
    tasks                     BLOB    NOT NULL -- ids of 16 bytes each
) STRICT;
CREATE INDEX handoffs_made_at ON handoffs (made_at);

-- Look again at `at`. Only tasks off the fast path have a row.
CREATE TABLE agenda (
    task                      BLOB    NOT NULL PRIMARY KEY,
    at                        TEXT    NOT NULL,
    run                       INTEGER NOT NULL, -- never lowered
    why                       INTEGER NOT NULL,
    lane                      INTEGER NOT NULL, -- 0 visited when due, 1 taken by the feeder
    queue                     TEXT    NOT NULL,
    band                      INTEGER NOT NULL -- 0 is served first
) STRICT;
CREATE INDEX agenda_due ON agenda (lane, at);
CREATE INDEX agenda_best ON agenda (lane, queue, band, at, task);

-- Run n began, or its slot was closed so that it cannot begin. Written once.
CREATE TABLE starts (
    task                      BLOB    NOT NULL,
    run                       INTEGER NOT NULL,
    kind                      INTEGER NOT NULL,
    attempt                   INTEGER NOT NULL,
    token                     BLOB    NOT NULL,
    worker                    BLOB    NULL,
    started_at                TEXT    NOT NULL,
    PRIMARY KEY (task, run)
) STRICT, WITHOUT ROWID;

-- Run n is over. Written once.
CREATE TABLE ends (
    task                      BLOB    NOT NULL,
    run                       INTEGER NOT NULL,
    kind                      INTEGER NOT NULL,
    ended_by                  BLOB    NOT NULL, -- token of who wrote it
    attempts_used             INTEGER NOT NULL,
    next_run_at               TEXT    NULL,
    result_type               TEXT    NULL,
    result                    BLOB    NULL,
    failure_kind              TEXT    NULL,
    failure_message           TEXT    NULL,
    failure_detail            TEXT    NULL,
    failure_fatal             INTEGER NULL,
    failure_retry_after_nanos INTEGER NULL,
    ended_at                  TEXT    NOT NULL,
    PRIMARY KEY (task, run)
) STRICT;
CREATE INDEX ends_by_kind ON ends (kind, task);

-- A cancel was asked for while a run was open. The budget is the last replayed run, else 0.
CREATE TABLE cancels (
    task                      BLOB    NOT NULL,
    budget                    INTEGER NOT NULL,
    reason                    TEXT    NOT NULL,
    requested_at              TEXT    NOT NULL,
    grace_nanos               INTEGER NOT NULL,
    PRIMARY KEY (task, budget)
) STRICT, WITHOUT ROWID;

-- Signs of life, progress and checkpoint of the newest run that reported: a cache.
CREATE TABLE live (
    task                      BLOB    NOT NULL PRIMARY KEY,
    run                       INTEGER NOT NULL, -- never lowered
    seen_at                   TEXT    NOT NULL,
    progress_current          INTEGER NULL,
    progress_total            INTEGER NULL,
    progress_message          TEXT    NULL,
    progress_at               TEXT    NULL,
    checkpoint_type           TEXT    NULL,
    checkpoint                BLOB    NULL
) STRICT;

CREATE TABLE task_tags (
    task                      BLOB    NOT NULL,
    tag                       TEXT    NOT NULL,
    PRIMARY KEY (task, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_tags_by_tag ON task_tags (tag, task);

-- Idempotency keys and request ids. They have a life of their own and outlive their tasks.
CREATE TABLE idempotency_keys (
    kind                      INTEGER NOT NULL,
    name                      BLOB    NOT NULL,
    tasks                     BLOB    NOT NULL, -- id and digest of each task, 32 bytes
    expires_at                TEXT    NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE workers (
    id                        BLOB    NOT NULL PRIMARY KEY,
    seen_at                   TEXT    NOT NULL,
    first_seen_at             TEXT    NOT NULL,
    stopped                   INTEGER NOT NULL,
    info                      BLOB    NOT NULL
) STRICT;
CREATE INDEX workers_seen_at ON workers (seen_at);

CREATE TABLE cursors (
    name                      TEXT    NOT NULL PRIMARY KEY,
    value                     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
