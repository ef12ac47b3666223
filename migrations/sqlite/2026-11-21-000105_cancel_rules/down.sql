DROP TABLE cancel_rules;
