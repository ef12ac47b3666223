INSERT IGNORE INTO cancel_guard (id, rules) VALUES (1, 0);
