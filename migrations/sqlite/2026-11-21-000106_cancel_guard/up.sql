-- One row. Starts and submissions share it; whoever makes or ends a rule has it alone, so that each of them is before or after.
CREATE TABLE cancel_guard (
    id                        INTEGER NOT NULL PRIMARY KEY,
    rules                     INTEGER NOT NULL -- rules that may be active, at least; with 0 nobody reads them
) STRICT;
