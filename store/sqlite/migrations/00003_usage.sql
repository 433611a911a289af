-- Usage statistics: what each key did, by the owner it then had and by calendar
-- day (YYYYMMDD, in the time zone that the configuration had). A key that is
-- deleted leaves its rows behind; an owner takes them along.

CREATE TABLE {p}usage (
    key_id  TEXT    NOT NULL CHECK (length(key_id) BETWEEN 1 AND 255),
    user_id TEXT    NOT NULL REFERENCES {p}owners (user_id) ON DELETE CASCADE,
    day     INTEGER NOT NULL CHECK (day BETWEEN 10101 AND 99991231),
    allowed INTEGER NOT NULL CHECK (allowed BETWEEN 0 AND 9007199254740991),
    limited INTEGER NOT NULL CHECK (limited BETWEEN 0 AND 9007199254740991),
    denied  INTEGER NOT NULL CHECK (denied BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (user_id, day, key_id)
) STRICT, WITHOUT ROWID;

-- Written once per key and day: later counts change no column of it.
CREATE INDEX {p}usage_by_key ON {p}usage (key_id, day);

-- The last batch that each process has written (see store.UsageBatch).
CREATE TABLE {p}usage_writers (
    writer TEXT    NOT NULL PRIMARY KEY CHECK (length(writer) BETWEEN 1 AND 255),
    number INTEGER NOT NULL CHECK (number >= 1)
) STRICT, WITHOUT ROWID;
