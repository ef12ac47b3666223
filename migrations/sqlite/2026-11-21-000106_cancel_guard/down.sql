DROP TABLE cancel_guard;
