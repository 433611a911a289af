-- The ledger of credits. Whatever was given to a key is at home (remaining), out
-- with a process that spends it from memory (leased), spent or forfeited; the
-- last CHECK holds the sum. What was spent before this step is not known: the
-- sum begins with what remains.

ALTER TABLE {p}credits ADD COLUMN leased  INTEGER NOT NULL DEFAULT 0 CHECK (leased BETWEEN 0 AND 9007199254740991);
ALTER TABLE {p}credits ADD COLUMN spent   INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0);
ALTER TABLE {p}credits ADD COLUMN granted INTEGER NOT NULL DEFAULT 0 CHECK (granted >= 0);
UPDATE {p}credits SET granted = remaining WHERE remaining > 0;
ALTER TABLE {p}credits ADD COLUMN forfeited INTEGER NOT NULL DEFAULT 0
    CHECK (forfeited >= 0 AND granted = coalesce(remaining, 0) + leased + spent + forfeited);

-- What a crash left leased is looked for at each start.
CREATE INDEX {p}credits_leased ON {p}credits (key_id) WHERE leased > 0;
