-- Members of the tree that an operation walks, while it is at work.
CREATE TABLE operation_tasks (
    operation BINARY(16) NOT NULL,
    task      BINARY(16) NOT NULL,
    state     SMALLINT   NOT NULL COMMENT '0 to be looked at, 1 over, 2 asked to stop',
    counted   SMALLINT   NOT NULL COMMENT 'as what it is counted: 0 not yet, 1 cancelled, 2 requested, 3 finished, 4 failed',
    after     BINARY(16) NULL COMMENT 'its children up to here are members',
    PRIMARY KEY (operation, task),
    KEY operation_tasks_open (operation, state, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
