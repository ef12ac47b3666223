-- Members of the tree that an operation walks, while it is at work.
CREATE TABLE operation_tasks (
    operation                 BLOB    NOT NULL,
    task                      BLOB    NOT NULL,
    state                     INTEGER NOT NULL, -- 0 to be looked at, 1 over, 2 asked to stop
    counted                   INTEGER NOT NULL, -- as what it is counted: 0 not yet, 1 cancelled, 2 requested, 3 finished, 4 failed
    after                     BLOB    NULL, -- its children up to here are members
    PRIMARY KEY (operation, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX operation_tasks_open ON operation_tasks (operation, state, task);
