-- Whether a raw key that rotation replaced ends in the checksum: until its grace
-- is over, one that does not must be let through to the look-up. Of those that
-- are here already nobody knows.

ALTER TABLE {p}former_hashes ADD COLUMN checksummed INTEGER NOT NULL DEFAULT 0 CHECK (checksummed IN (0, 1));

CREATE INDEX {p}former_plain ON {p}former_hashes (key_id) WHERE checksummed = 0;
