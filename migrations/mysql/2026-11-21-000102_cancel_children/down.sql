DROP TABLE task_children;
