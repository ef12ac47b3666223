-- Operations on many tasks: what was asked for, by whom and why, and how far it is.
CREATE TABLE operations (
    id                        BLOB    NOT NULL PRIMARY KEY,
    request                   BLOB    NULL, -- the client's name for the call
    rule                      BLOB    NULL, -- cancel rule whose sweep this is
    action                    INTEGER NOT NULL,
    selector                  INTEGER NOT NULL,
    picks                     BLOB    NOT NULL, -- ids of 16 bytes each, a tag, a filter, or the root of a tree
    reason                    TEXT    NOT NULL,
    actor                     TEXT    NOT NULL,
    grace_nanos               INTEGER NOT NULL,
    state                     INTEGER NOT NULL,
    step                      INTEGER NOT NULL, -- batches recorded: of two that do the same one, the first is counted
    position                  BLOB    NULL, -- the next batch comes after this
    next_at                   TEXT    NOT NULL,
    matched                   INTEGER NOT NULL,
    cancelled                 INTEGER NOT NULL,
    requested                 INTEGER NOT NULL,
    finished                  INTEGER NOT NULL,
    failed                    INTEGER NOT NULL,
    failures                  TEXT    NULL, -- JSON list of the first ones
    created_at                TEXT    NOT NULL,
    ended_at                  TEXT    NULL
) STRICT;
CREATE UNIQUE INDEX operations_request ON operations (request);
CREATE INDEX operations_due ON operations (state, next_at);
