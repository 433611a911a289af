-- The first schema. {p} is the table prefix of the configuration.
--
-- Times are Unix milliseconds, durations milliseconds, booleans 0 or 1, and
-- NULL is "none". Counts lie within 0 and 2^53-1, so that every JSON reader
-- keeps them exact. The CHECKs are the last line of defence: whatever a bug or a
-- hand-written UPDATE tries, a value outside its range is not stored.
--
-- What changes at different moments lies in different tables: records change
-- by administration, credits and counters by use. So no write of a counter can
-- bring back an old record.

CREATE TABLE {p}owners (
    user_id    TEXT    NOT NULL PRIMARY KEY CHECK (length(user_id) BETWEEN 1 AND 255),
    tier       TEXT,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    updated_at INTEGER NOT NULL CHECK (updated_at BETWEEN 0 AND 9007199254740991),
    generation INTEGER NOT NULL CHECK (generation >= 1)
) STRICT, WITHOUT ROWID;

CREATE TABLE {p}keys (
    id                     TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
    config_id              TEXT    NOT NULL CHECK (length(config_id) BETWEEN 1 AND 255),
    user_id                TEXT    NOT NULL REFERENCES {p}owners (user_id) ON DELETE CASCADE,
    name                   TEXT    CHECK (length(name) <= 16384),
    prefix                 TEXT    CHECK (length(prefix) <= 255),
    start                  TEXT    CHECK (length(start) <= 255),
    hash                   BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    secret_hash            BLOB    CHECK (length(secret_hash) = 32),
    checksummed            INTEGER NOT NULL CHECK (checksummed IN (0, 1)),
    enabled                INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    permissions            TEXT    CHECK (length(permissions) <= 1048576),
    metadata               TEXT    CHECK (length(metadata) <= 1048576),
    allowed_ips            TEXT    CHECK (length(allowed_ips) <= 1048576),
    expires_at             INTEGER CHECK (expires_at BETWEEN 1 AND 9007199254740991),
    created_at             INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    updated_at             INTEGER NOT NULL CHECK (updated_at BETWEEN 0 AND 9007199254740991),
    rate_limit_enabled     INTEGER NOT NULL CHECK (rate_limit_enabled IN (0, 1)),
    rate_limit_max         INTEGER CHECK (rate_limit_max BETWEEN 1 AND 9007199254740991),
    rate_limit_time_window INTEGER CHECK (rate_limit_time_window BETWEEN 1 AND 9007199254740991),
    rate_limit_algorithm   TEXT    NOT NULL CHECK (rate_limit_algorithm IN ('fixed_window', 'sliding_window', 'token_bucket')),
    generation             INTEGER NOT NULL CHECK (generation >= 1)
) STRICT;

-- One index for each way to look for and to page through keys: a page must not
-- cost more at its end than at its start.
CREATE INDEX {p}keys_by_created ON {p}keys (created_at, id);
CREATE INDEX {p}keys_by_name ON {p}keys (name, id);
CREATE INDEX {p}keys_by_owner ON {p}keys (user_id, created_at, id);
CREATE INDEX {p}keys_by_config ON {p}keys (config_id, created_at, id);
CREATE INDEX {p}keys_by_prefix ON {p}keys (prefix, created_at, id);
CREATE INDEX {p}keys_by_enabled ON {p}keys (enabled, created_at, id);
CREATE INDEX {p}keys_by_expiry ON {p}keys (expires_at, id) WHERE expires_at IS NOT NULL;
CREATE INDEX {p}keys_plain ON {p}keys (id) WHERE checksummed = 0;

-- Hashes of raw keys that rotation replaced, and of the secrets that went with them.
CREATE TABLE {p}former_hashes (
    hash        BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    secret_hash BLOB    CHECK (length(secret_hash) = 32),
    key_id      TEXT    NOT NULL REFERENCES {p}keys (id) ON DELETE CASCADE,
    until_ms    INTEGER NOT NULL CHECK (until_ms BETWEEN 0 AND 9007199254740991),
    position    INTEGER NOT NULL CHECK (position >= 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX {p}former_by_key ON {p}former_hashes (key_id, position);
CREATE INDEX {p}former_by_end ON {p}former_hashes (until_ms);

-- remaining NULL is unlimited.
CREATE TABLE {p}credits (
    key_id          TEXT    NOT NULL PRIMARY KEY REFERENCES {p}keys (id) ON DELETE CASCADE,
    remaining       INTEGER CHECK (remaining BETWEEN 0 AND 9007199254740991),
    peak            INTEGER NOT NULL CHECK (peak BETWEEN 0 AND 9007199254740991),
    refill_amount   INTEGER CHECK (refill_amount BETWEEN 1 AND 9007199254740991),
    refill_interval INTEGER CHECK (refill_interval BETWEEN 1 AND 9007199254740991),
    refill_from     INTEGER CHECK (refill_from BETWEEN 0 AND 9007199254740991),
    last_refill_at  INTEGER CHECK (last_refill_at BETWEEN 0 AND 9007199254740991),
    version         INTEGER NOT NULL CHECK (version >= 1),
    CHECK ((refill_amount IS NULL) = (refill_interval IS NULL))
) STRICT, WITHOUT ROWID;

-- Each key has a row from its first day, so that a late write of counters is an
-- UPDATE that misses, never an INSERT that brings a deleted key back.
CREATE TABLE {p}counters (
    key_id       TEXT    NOT NULL PRIMARY KEY REFERENCES {p}keys (id) ON DELETE CASCADE,
    last_request INTEGER CHECK (last_request BETWEEN 1 AND 9007199254740991),
    rate_state   BLOB    CHECK (length(rate_state) BETWEEN 1 AND 1048576)
) STRICT, WITHOUT ROWID;

CREATE INDEX {p}counters_by_last_request ON {p}counters (last_request, key_id);
