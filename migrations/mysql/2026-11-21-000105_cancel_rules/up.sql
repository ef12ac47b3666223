-- Cancels what matches, and what is submitted until the rule ends.
CREATE TABLE cancel_rules (
    id          BINARY(16)   NOT NULL PRIMARY KEY,
    request     BINARY(16)   NULL COMMENT 'the client''s name for the call',
    sweep       BINARY(16)   NOT NULL COMMENT 'operation that cancels what was there before the rule',
    selector    SMALLINT     NOT NULL,
    picks       MEDIUMBLOB   NOT NULL COMMENT 'a tag or a filter',
    reason      TEXT         NOT NULL,
    actor       VARCHAR(128) NOT NULL,
    grace_nanos BIGINT       NOT NULL,
    cancelled   BIGINT       NOT NULL COMMENT 'at submission and at a start; the sweep counts for itself',
    created_at  DATETIME(6)  NOT NULL,
    expires_at  DATETIME(6)  NOT NULL,
    ended_at    DATETIME(6)  NULL,
    UNIQUE KEY cancel_rules_request (request),
    KEY cancel_rules_active (ended_at, expires_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
