-- Tasks by the task that started them: trees are walked downwards.
CREATE TABLE task_children (
    parent                    BLOB    NOT NULL,
    task                      BLOB    NOT NULL,
    PRIMARY KEY (parent, task)
) STRICT, WITHOUT ROWID;
