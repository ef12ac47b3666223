-- One row. Starts and submissions share it; whoever makes or ends a rule has it alone, so that each of them is before or after.
CREATE TABLE cancel_guard (
    id    SMALLINT NOT NULL PRIMARY KEY,
    rules BIGINT   NOT NULL COMMENT 'rules that may be active, at least; with 0 nobody reads them'
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
