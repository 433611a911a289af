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

-- The revision of the last administrative change of anything.
CREATE TABLE {p}revision (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL CHECK (last >= 0)
) STRICT;

INSERT INTO {p}revision (one, last) VALUES (1, 0);

CREATE TABLE {p}owners (
    num        INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    TEXT    UNIQUE CHECK (length(user_id) BETWEEN 1 AND 255), -- NULL: deleted, see below
    tier       TEXT,
    enabled    INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    key_count  INTEGER NOT NULL DEFAULT 0 CHECK (key_count >= 0),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    updated_at INTEGER NOT NULL CHECK (updated_at BETWEEN 0 AND 9007199254740991),
    revision   INTEGER NOT NULL CHECK (revision >= 1)
) STRICT;

-- An owner is deleted by taking its user_id away: nothing shows it and its keys from then
-- on. Their rows are cleared away in many small transactions.

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
    disabled_at INTEGER CHECK (disabled_at >= 0), -- of those that their owner has disabled: when they were changed last
    expires_at  INTEGER CHECK (expires_at BETWEEN 1 AND 9007199254740991),
    created_at  INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    revision    INTEGER NOT NULL CHECK (revision >= 1),
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
CREATE INDEX {p}keys_by_disabling ON {p}keys (config_id, disabled_at, id) WHERE disabled_at IS NOT NULL;
CREATE INDEX {p}keys_by_end ON {p}keys (expires_at, id);
CREATE INDEX {p}keys_plain ON {p}keys (num) WHERE checksummed = 0;

-- How many keys there are is kept, not counted, here and in owners.key_count. state
-- is what is stored: whether a key has expired is a matter of the moment.
CREATE TABLE {p}key_counts (
    config_id TEXT    NOT NULL,
    state     TEXT    NOT NULL CHECK (state IN ('enabled', 'disabled')),
    n         INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (config_id, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER {p}count_created AFTER INSERT ON {p}keys BEGIN
    INSERT INTO {p}key_counts VALUES (new.config_id, iif(new.enabled, 'enabled', 'disabled'), 1)
        ON CONFLICT (config_id, state) DO UPDATE SET n = n + 1;
    UPDATE {p}owners SET key_count = key_count + 1 WHERE num = new.owner;
    INSERT OR IGNORE INTO {p}search_todo VALUES (new.num);
END;

CREATE TRIGGER {p}count_deleted AFTER DELETE ON {p}keys BEGIN
    UPDATE {p}key_counts SET n = n - 1 WHERE config_id = old.config_id AND state = iif(old.enabled, 'enabled', 'disabled');
    UPDATE {p}owners SET key_count = key_count - 1 WHERE num = old.owner;
    INSERT OR IGNORE INTO {p}search_todo VALUES (old.num);
END;

CREATE TRIGGER {p}count_changed AFTER UPDATE OF config_id, enabled ON {p}keys
    WHEN old.config_id <> new.config_id OR old.enabled <> new.enabled BEGIN
    UPDATE {p}key_counts SET n = n - 1 WHERE config_id = old.config_id AND state = iif(old.enabled, 'enabled', 'disabled');
    INSERT INTO {p}key_counts VALUES (new.config_id, iif(new.enabled, 'enabled', 'disabled'), 1)
        ON CONFLICT (config_id, state) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER {p}count_moved AFTER UPDATE OF owner ON {p}keys WHEN old.owner <> new.owner BEGIN
    UPDATE {p}owners SET key_count = key_count - 1 WHERE num = old.owner;
    UPDATE {p}owners SET key_count = key_count + 1 WHERE num = new.owner;
END;

-- Finds keys by a part of these texts. It is written behind the changes of keys:
-- search_todo has the numbers of those that it does not know as they are.
CREATE VIRTUAL TABLE {p}key_search USING fts5 (name, start, owner,
    content = '', contentless_delete = 1, detail = none, tokenize = 'trigram');

CREATE TABLE {p}search_todo (
    key INTEGER PRIMARY KEY
) STRICT;

CREATE TRIGGER {p}search_changed AFTER UPDATE OF name, start, owner ON {p}keys
    WHEN old.name IS NOT new.name OR old.start IS NOT new.start OR old.owner <> new.owner BEGIN
    INSERT OR IGNORE INTO {p}search_todo VALUES (new.num);
END;

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

-- The balances of keys, for those that have or had credits, and of owners. subject
-- is the number of the key or owner. Whatever was given to an account is at home
-- (remaining), out with holders that spend it from memory (leased), set aside for
-- requests whose cost is not known yet (held), spent, forfeited or expired; what was
-- spent beyond that is a debt. The last CHECK holds the sum. remaining NULL is
-- unlimited.
CREATE TABLE {p}accounts (
    subject         INTEGER NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('key', 'owner')),
    unit            TEXT    NOT NULL CHECK (unit IN ('requests', 'tokens', 'usd')),
    remaining       INTEGER CHECK (remaining BETWEEN 0 AND 9007199254740991),
    leased          INTEGER NOT NULL CHECK (leased BETWEEN 0 AND 9007199254740991),
    held            INTEGER NOT NULL CHECK (held BETWEEN 0 AND 9007199254740991),
    debt            INTEGER NOT NULL CHECK (debt >= 0),
    spent           INTEGER NOT NULL CHECK (spent >= 0),
    forfeited       INTEGER NOT NULL CHECK (forfeited >= 0),
    expired         INTEGER NOT NULL CHECK (expired >= 0),
    granted         INTEGER NOT NULL CHECK (granted >= 0),
    peak            INTEGER NOT NULL CHECK (peak BETWEEN 0 AND 9007199254740991),
    reported        INTEGER NOT NULL CHECK (reported BETWEEN 0 AND 100),
    refill_amount   INTEGER CHECK (refill_amount BETWEEN 1 AND 9007199254740991),
    refill_interval INTEGER CHECK (refill_interval BETWEEN 1 AND 9007199254740991),
    refill_calendar TEXT    CHECK (length(refill_calendar) BETWEEN 1 AND 64),
    refill_from     INTEGER CHECK (refill_from BETWEEN 0 AND 9007199254740991),
    last_refill_at  INTEGER CHECK (last_refill_at BETWEEN 0 AND 9007199254740991),
    version         INTEGER NOT NULL CHECK (version >= 1),
    PRIMARY KEY (subject, kind),
    CHECK ((refill_amount IS NULL) = (refill_interval IS NULL AND refill_calendar IS NULL)),
    CHECK (refill_interval IS NULL OR refill_calendar IS NULL),
    CHECK (granted = coalesce(remaining, 0) + leased + held + spent + forfeited + expired - debt)
) STRICT, WITHOUT ROWID;

-- What of an account is out with whom. accounts.leased is the sum. A holder that
-- starts again has a higher epoch. until_ms 0 is: until the holder says so.
CREATE TABLE {p}leases (
    subject  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    holder   TEXT    NOT NULL CHECK (length(holder) BETWEEN 1 AND 255),
    epoch    INTEGER NOT NULL,
    amount   INTEGER NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    until_ms INTEGER NOT NULL CHECK (until_ms BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (subject, kind, holder, epoch),
    FOREIGN KEY (subject, kind) REFERENCES {p}accounts (subject, kind) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX {p}leases_by_holder ON {p}leases (holder, epoch);

-- Parts of a balance that end: left of amount is in accounts.remaining until then.
CREATE TABLE {p}grants (
    num        INTEGER PRIMARY KEY AUTOINCREMENT,
    subject    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount BETWEEN 1 AND 9007199254740991),
    left_over  INTEGER NOT NULL CHECK (left_over BETWEEN 0 AND amount),
    expires_at INTEGER CHECK (expires_at BETWEEN 1 AND 9007199254740991),
    created_at INTEGER NOT NULL CHECK (created_at BETWEEN 0 AND 9007199254740991),
    note       TEXT    CHECK (length(note) <= 16384),
    FOREIGN KEY (subject, kind) REFERENCES {p}accounts (subject, kind) ON DELETE CASCADE
) STRICT;

CREATE INDEX {p}grants_by_account ON {p}grants (subject, kind, expires_at);
CREATE INDEX {p}grants_by_end ON {p}grants (expires_at) WHERE left_over > 0;

CREATE TRIGGER {p}account_of_key AFTER DELETE ON {p}keys BEGIN
    DELETE FROM {p}accounts WHERE subject = old.num AND kind = 'key';
END;

CREATE TRIGGER {p}account_of_owner AFTER DELETE ON {p}owners BEGIN
    DELETE FROM {p}accounts WHERE subject = old.num AND kind = 'owner';
END;

-- When a key was last used, by any raw key. Only the hour is in an index, so that
-- a key that is used all the time changes it once an hour.
CREATE TABLE {p}last_uses (
    key  INTEGER PRIMARY KEY REFERENCES {p}keys (num) ON DELETE CASCADE,
    at   INTEGER NOT NULL CHECK (at BETWEEN 1 AND 9007199254740991),
    hour INTEGER NOT NULL GENERATED ALWAYS AS (at / 3600000) VIRTUAL
) STRICT;

CREATE INDEX {p}last_uses_by_hour ON {p}last_uses (hour);

-- What keys and owners have used of their limits, by unit: "rate" for a key's own
-- limit, day, month, or a duration such as 60000ms. subject is the number of the key
-- or of the owner. It is written behind the requests.
CREATE TABLE {p}windows (
    subject INTEGER NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('key', 'owner')),
    unit    TEXT    NOT NULL CHECK (length(unit) BETWEEN 1 AND 255),
    state   BLOB    NOT NULL CHECK (length(state) BETWEEN 1 AND 1048576),
    PRIMARY KEY (subject, kind, unit)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER {p}windows_of_key AFTER DELETE ON {p}keys BEGIN
    DELETE FROM {p}windows WHERE subject = old.num AND kind = 'key';
END;

CREATE TRIGGER {p}windows_of_owner AFTER DELETE ON {p}owners BEGIN
    DELETE FROM {p}windows WHERE subject = old.num AND kind = 'owner';
END;

-- Usage statistics. Batches of increments come into the journal, one row each, and
-- are folded from there into the rows below. A folding takes several transactions:
-- of the batches up to fold.batch, what comes before fold.position in their order is
-- folded already.
CREATE TABLE {p}usage_journal (
    num   INTEGER PRIMARY KEY AUTOINCREMENT,
    batch BLOB    NOT NULL
) STRICT;

CREATE TABLE {p}usage_fold (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    batch    INTEGER NOT NULL,
    position INTEGER NOT NULL CHECK (position >= 0)
) STRICT;

-- The last batch that each process has written (see store.UsageBatch).
CREATE TABLE {p}usage_writers (
    writer TEXT    NOT NULL PRIMARY KEY CHECK (length(writer) BETWEEN 1 AND 255),
    number INTEGER NOT NULL CHECK (number >= 1)
) STRICT, WITHOUT ROWID;

-- What keys and owners did by calendar day (YYYYMMDD, in the time zone that the
-- configuration had). what is allowed, limited, denied. A key that is deleted leaves
-- its rows behind; an owner takes them along.
CREATE TABLE {p}usage (
    subject INTEGER NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('key', 'owner')),
    day     INTEGER NOT NULL CHECK (day BETWEEN 10101 AND 99991231),
    what    TEXT    NOT NULL CHECK (length(what) BETWEEN 1 AND 32),
    n       INTEGER NOT NULL CHECK (n BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (subject, kind, day, what)
) STRICT, WITHOUT ROWID;

-- Keys that were deleted, so that their usage is found by their ID.
CREATE TABLE {p}past_keys (
    num   INTEGER PRIMARY KEY,
    id    TEXT    NOT NULL,
    owner INTEGER NOT NULL REFERENCES {p}owners (num) ON DELETE CASCADE
) STRICT;

CREATE INDEX {p}past_keys_by_id ON {p}past_keys (id);
CREATE INDEX {p}past_keys_by_owner ON {p}past_keys (owner);

-- Requests by hour (of Unix time), outcome and tier; empty: none.
CREATE TABLE {p}usage_hours (
    hour    INTEGER NOT NULL,
    outcome TEXT    NOT NULL CHECK (length(outcome) <= 64),
    tier    TEXT    NOT NULL CHECK (length(tier) <= 255),
    n       INTEGER NOT NULL CHECK (n BETWEEN 0 AND 9007199254740991),
    PRIMARY KEY (hour, outcome, tier)
) STRICT, WITHOUT ROWID;

-- The owners with the most requests of each day, at most 100.
CREATE TABLE {p}usage_top_owners (
    day   INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (day, owner)
) STRICT, WITHOUT ROWID;

-- The permissions that requests asked keys for, at most 64 of a key.
CREATE TABLE {p}asked_permissions (
    key        INTEGER NOT NULL REFERENCES {p}keys (num) ON DELETE CASCADE,
    permission TEXT    NOT NULL CHECK (length(permission) BETWEEN 1 AND 512),
    PRIMARY KEY (key, permission)
) STRICT, WITHOUT ROWID;

-- The audit log: what was changed, and by whom. doc is the entry as canonical JSON,
-- chain its hash over the entry before (see store.AuditEntry); the other columns
-- repeat what is searched. id has no gaps.
CREATE TABLE {p}audit (
    id         INTEGER PRIMARY KEY CHECK (id >= 1),
    at         INTEGER NOT NULL CHECK (at >= 0),
    action     TEXT    NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    actor_kind TEXT    NOT NULL CHECK (length(actor_kind) BETWEEN 1 AND 32),
    actor      TEXT    CHECK (length(actor) >= 1), -- its ID or its name
    key_id     TEXT    CHECK (length(key_id) >= 1),
    user_id    TEXT    CHECK (length(user_id) >= 1),
    doc        TEXT    NOT NULL CHECK (json_valid(doc)),
    chain      TEXT    NOT NULL CHECK (length(chain) = 64)
) STRICT;

CREATE INDEX {p}audit_by_key ON {p}audit (key_id, id) WHERE key_id IS NOT NULL;
CREATE INDEX {p}audit_by_owner ON {p}audit (user_id, id) WHERE user_id IS NOT NULL;

-- The last entry that was removed for its age.
CREATE TABLE {p}audit_anchor (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    id    INTEGER NOT NULL,
    chain TEXT    NOT NULL
) STRICT;

-- Events on their way to webhooks: a row for each event and webhook. It is written in
-- the transaction of what the event tells, and removed when the webhook has it. A dead
-- one is tried no more. next_attempt of one that is being sent is when somebody else may
-- take it for lost.
CREATE TABLE {p}outbox (
    num          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 64),
    event        TEXT    NOT NULL CHECK (length(event) BETWEEN 1 AND 64),
    url          TEXT    NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    body         TEXT    NOT NULL CHECK (json_valid(body)),
    state        TEXT    NOT NULL CHECK (state IN ('pending', 'dead')),
    attempts     INTEGER NOT NULL CHECK (attempts >= 0),
    next_attempt INTEGER NOT NULL CHECK (next_attempt >= 0),
    last_status  INTEGER CHECK (last_status BETWEEN 100 AND 999),
    created_at   INTEGER NOT NULL CHECK (created_at >= 0)
) STRICT;

CREATE INDEX {p}outbox_due ON {p}outbox (url, next_attempt) WHERE state = 'pending';
CREATE INDEX {p}outbox_by_state ON {p}outbox (state, num);
CREATE INDEX {p}outbox_by_age ON {p}outbox (state, created_at);

-- How far the search for keys has come whose time comes: all before this place were
-- found.
CREATE TABLE {p}marks (
    name TEXT    NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    at   INTEGER NOT NULL CHECK (at >= 0),
    id   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
