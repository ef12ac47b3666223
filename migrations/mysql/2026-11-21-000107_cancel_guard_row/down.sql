DELETE FROM cancel_guard;
