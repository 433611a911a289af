-- The schema. {p} is the table prefix of the configuration.
--
-- Times are Unix milliseconds, durations milliseconds, booleans 0 or 1, and
-- NULL is "none". Counts lie within 0 and 2^53-1, so that every JSON reader
-- keeps them exact. The CHECKs are the last line of defence: whatever a bug or a
-- hand-written UPDATE tries, a value outside its range is not stored.
--
-- What changes at different moments lies in different tables: records change
-- by administration, credits and counters by use. So no write of a counter can
-- bring back an old record.
--
-- Keys and owners have a number that is never used again, by which other tables
-- refer to them.

CREATE TABLE {p}owners (
    num        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    TEXT    NOT NULL UNIQUE CHECK (length(user_id) BETWEEN 1 AND 255),
    tier       TEXT,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    updated_at INTEGER NOT NULL CHECK (updated_at BETWEEN 0 AND 9007199254740991),
    generation INTEGER NOT NULL CHECK (generation >= 1)
) STRICT;

-- doc is the whole record (see key.AppendDocument). The other columns repeat what
-- is searched, sorted or guarded; they are what a document of the same key says.
CREATE TABLE {p}keys (
    num         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 255),
    hash        BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    owner       INTEGER NOT NULL REFERENCES {p}owners (num) ON DELETE CASCADE,
    config_id   TEXT    NOT NULL CHECK (length(config_id) BETWEEN 1 AND 255),
    name        TEXT    CHECK (length(name) <= 16384),
    prefix      TEXT    CHECK (length(prefix) <= 255),
    start       TEXT    CHECK (length(start) <= 255),
    checksummed INTEGER NOT NULL CHECK (checksummed IN (0, 1)),
    enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    expires_at  INTEGER CHECK (expires_at BETWEEN 1 AND 9007199254740991),
    created_at  INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    generation  INTEGER NOT NULL CHECK (generation >= 1),
    doc         TEXT    NOT NULL CHECK (length(doc) <= 4194304 AND json_valid(doc)
        AND doc ->> 'id' IS id AND doc ->> 'hash' IS lower(hex(hash))
        AND coalesce(doc ->> 'enabled', 0) IS enabled AND doc ->> 'expiresAt' IS expires_at
        AND coalesce(doc ->> 'updatedAt', 0) BETWEEN 0 AND 9007199254740991
        AND coalesce(doc ->> 'rateLimitMax', 1) BETWEEN 1 AND 9007199254740991
        AND coalesce(doc ->> 'rateLimitTimeWindow', 1) BETWEEN 1 AND 9007199254740991)
) STRICT;

-- One index for each way to look for and to page through keys: a page must not
-- cost more at its end than at its start.
CREATE INDEX {p}keys_by_created ON {p}keys (created_at, id);
CREATE INDEX {p}keys_by_name ON {p}keys (name, id);
CREATE INDEX {p}keys_by_owner ON {p}keys (owner, created_at, id);
CREATE INDEX {p}keys_by_config ON {p}keys (config_id, created_at, id);
CREATE INDEX {p}keys_by_prefix ON {p}keys (prefix, created_at, id);
CREATE INDEX {p}keys_by_enabled ON {p}keys (enabled, created_at, id);
-- How long an expired key is kept is a matter of its configuration.
CREATE INDEX {p}keys_by_expiry ON {p}keys (config_id, expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX {p}keys_plain ON {p}keys (num) WHERE checksummed = 0;

-- The raw keys that rotation replaced are part of the document; this finds the key
-- by their hash, and holds what use changes of them.
CREATE TABLE {p}previous_hashes (
    hash         BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    key          INTEGER NOT NULL REFERENCES {p}keys (num) ON DELETE CASCADE,
    until_ms     INTEGER NOT NULL CHECK (until_ms BETWEEN 0 AND 9007199254740991),
    checksummed  INTEGER NOT NULL CHECK (checksummed IN (0, 1)),
    last_request INTEGER CHECK (last_request BETWEEN 1 AND 9007199254740991)
) STRICT, WITHOUT ROWID;

CREATE INDEX {p}previous_by_key ON {p}previous_hashes (key);
CREATE INDEX {p}previous_by_end ON {p}previous_hashes (until_ms);
CREATE INDEX {p}previous_plain ON {p}previous_hashes (key) WHERE checksummed = 0;

-- The ledger of credits, for keys that have or had some. Whatever was given to a
-- key is at home (remaining), out with a process that spends it from memory
-- (leased), spent or forfeited; the last CHECK holds the sum. remaining NULL is
-- unlimited.
CREATE TABLE {p}credits (
    key             INTEGER PRIMARY KEY REFERENCES {p}keys (num) ON DELETE CASCADE,
    remaining       INTEGER CHECK (remaining BETWEEN 0 AND 9007199254740991),
    leased          INTEGER NOT NULL CHECK (leased BETWEEN 0 AND 9007199254740991),
    spent           INTEGER NOT NULL CHECK (spent >= 0),
    forfeited       INTEGER NOT NULL CHECK (forfeited >= 0),
    granted         INTEGER NOT NULL CHECK (granted >= 0),
    peak            INTEGER NOT NULL CHECK (peak BETWEEN 0 AND 9007199254740991),
    refill_amount   INTEGER CHECK (refill_amount BETWEEN 1 AND 9007199254740991),
    refill_interval INTEGER CHECK (refill_interval BETWEEN 1 AND 9007199254740991),
    refill_from     INTEGER CHECK (refill_from BETWEEN 0 AND 9007199254740991),
    last_refill_at  INTEGER CHECK (last_refill_at BETWEEN 0 AND 9007199254740991),
    version         INTEGER NOT NULL CHECK (version >= 1),
    CHECK ((refill_amount IS NULL) = (refill_interval IS NULL)),
    CHECK (granted = coalesce(remaining, 0) + leased + spent + forfeited)
) STRICT;

-- What a crash left leased is looked for at each start.
CREATE INDEX {p}credits_leased ON {p}credits (key) WHERE leased > 0;

-- Each key has a row from its first day, so that a late write of counters is an
-- UPDATE that misses, never an INSERT that brings a deleted key back.
CREATE TABLE {p}counters (
    key          INTEGER PRIMARY KEY REFERENCES {p}keys (num) ON DELETE CASCADE,
    last_request INTEGER CHECK (last_request BETWEEN 1 AND 9007199254740991),
    rate_state   BLOB    CHECK (length(rate_state) BETWEEN 1 AND 1048576)
) STRICT;

CREATE INDEX {p}counters_by_last_request ON {p}counters (last_request, key);

-- What the keys of an owner have used together of the limits of tiers, by unit:
-- day, month, or a duration such as 60000ms. It is written behind the requests, as
-- the counters of keys are.
CREATE TABLE {p}owner_counters (
    owner INTEGER NOT NULL REFERENCES {p}owners (num) ON DELETE CASCADE,
    unit  TEXT    NOT NULL CHECK (length(unit) BETWEEN 1 AND 255),
    state BLOB    NOT NULL CHECK (length(state) BETWEEN 1 AND 1048576),
    PRIMARY KEY (owner, unit)
) STRICT, WITHOUT ROWID;

-- Usage statistics: what each key did, by the owner it then had and by calendar
-- day (YYYYMMDD, in the time zone that the configuration had). A key that is
-- deleted leaves its rows behind; an owner takes them along.
CREATE TABLE {p}usage (
    key_id  TEXT    NOT NULL CHECK (length(key_id) BETWEEN 1 AND 255),
    owner   INTEGER NOT NULL REFERENCES {p}owners (num) ON DELETE CASCADE,
    day     INTEGER NOT NULL CHECK (day BETWEEN 10101 AND 99991231),
    allowed INTEGER NOT NULL CHECK (allowed BETWEEN 0 AND 9007199254740991),
    limited INTEGER NOT NULL CHECK (limited BETWEEN 0 AND 9007199254740991),
    denied  INTEGER NOT NULL CHECK (denied BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (owner, day, key_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX {p}usage_by_key ON {p}usage (key_id, day);

-- The last batch that each process has written (see store.UsageBatch).
CREATE TABLE {p}usage_writers (
    writer TEXT    NOT NULL PRIMARY KEY CHECK (length(writer) BETWEEN 1 AND 255),
    number INTEGER NOT NULL CHECK (number >= 1)
) STRICT, WITHOUT ROWID;
