DROP TABLE operation_tasks;
