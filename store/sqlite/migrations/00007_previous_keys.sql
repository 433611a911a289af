-- Who disabled a key: only an operator enables a key again that its owner has not
-- disabled. Of those that are disabled already nobody knows, so they count as
-- disabled by an operator.

ALTER TABLE {p}keys ADD COLUMN disabled_by TEXT CHECK (disabled_by IS NULL OR (disabled_by IN ('owner', 'operator', 'leak') AND enabled = 0));
UPDATE {p}keys SET disabled_by = 'operator' WHERE enabled = 0;

-- When the raw key of a key was replaced, and what is shown of those that rotation
-- replaced. last_request is written behind the requests, as counters are. A secret
-- goes with all raw keys of its key, so the one of the key is all that is needed.

ALTER TABLE {p}keys ADD COLUMN rotated_at INTEGER CHECK (rotated_at BETWEEN 1 AND 9007199254740991);
ALTER TABLE {p}former_hashes ADD COLUMN start TEXT CHECK (length(start) BETWEEN 1 AND 255);
ALTER TABLE {p}former_hashes ADD COLUMN last_request INTEGER CHECK (last_request BETWEEN 1 AND 9007199254740991);
ALTER TABLE {p}former_hashes DROP COLUMN secret_hash;
