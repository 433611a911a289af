-- What the keys of an owner have used together of the limits of tiers, by unit:
-- day, month, or a duration such as 60000ms. It is written behind the requests, as
-- the counters of keys are.

CREATE TABLE {p}owner_counters (
    user_id TEXT NOT NULL REFERENCES {p}owners (user_id) ON DELETE CASCADE,
    unit    TEXT NOT NULL CHECK (length(unit) BETWEEN 1 AND 255),
    state   BLOB NOT NULL CHECK (length(state) BETWEEN 1 AND 1048576),
    PRIMARY KEY (user_id, unit)
) STRICT, WITHOUT ROWID;
