-- Tasks by the task that started them: trees are walked downwards.
CREATE TABLE task_children (
    parent BINARY(16) NOT NULL,
    task   BINARY(16) NOT NULL,
    PRIMARY KEY (parent, task)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
