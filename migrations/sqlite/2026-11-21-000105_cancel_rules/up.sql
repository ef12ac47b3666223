-- Cancels what matches, and what is submitted until the rule ends.
CREATE TABLE cancel_rules (
    id                        BLOB    NOT NULL PRIMARY KEY,
    request                   BLOB    NULL, -- the client's name for the call
    sweep                     BLOB    NOT NULL, -- operation that cancels what was there before the rule
    selector                  INTEGER NOT NULL,
    picks                     BLOB    NOT NULL, -- a tag or a filter
    reason                    TEXT    NOT NULL,
    actor                     TEXT    NOT NULL,
    grace_nanos               INTEGER NOT NULL,
    cancelled                 INTEGER NOT NULL, -- at submission and at a start; the sweep counts for itself
    created_at                TEXT    NOT NULL,
    expires_at                TEXT    NOT NULL,
    ended_at                  TEXT    NULL
) STRICT;
CREATE UNIQUE INDEX cancel_rules_request ON cancel_rules (request);
CREATE INDEX cancel_rules_active ON cancel_rules (ended_at, expires_at);
