-- How long an expired key is kept is a matter of its configuration, so the
-- clean-up looks for expired keys of each.

CREATE INDEX {p}keys_by_config_expiry ON {p}keys (config_id, expires_at, id) WHERE expires_at IS NOT NULL;
DROP INDEX {p}keys_by_expiry;
