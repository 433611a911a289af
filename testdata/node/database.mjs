// Makes an SQLite database as a real Better Auth server leaves it, with keys of many
// kinds, and prints what they are, as JSON:
//
//	node database.mjs <file>
//
// Each has the raw key and the row as it is stored.
import { startReference } from "./reference.mjs";

const [file] = process.argv.slice(2);
const day = 24 * 60 * 60;
const server = await startReference(
	[
		{ configId: "default", enableMetadata: true, rateLimit: { maxRequests: 1000, timeWindow: 60_000 } },
		{ configId: "second", enableMetadata: true, rateLimit: { enabled: false }, defaultPrefix: "sec_" },
		{ configId: "team", references: "organization" },
		{ configId: "plain", disableKeyHashing: true, startingCharactersConfig: { shouldStore: false } },
	],
	file,
);
const { api } = server.auth;
const ids = {};
for (const name of ["alice", "bob"]) {
	const { user } = await api.signUpEmail({ body: { name, email: `${name}@example.com`, password: "correct horse" } });
	ids[name] = user.id;
}
const organization = await api.createOrganization({ body: { name: "Acme", slug: "acme", userId: ids.alice } });

const made = {};
async function make(kind, fields = {}, user = "alice") {
	made[kind] = await api.createApiKey({ body: { name: kind, userId: ids[user], ...fields } });
	return made[kind];
}
const set = (kind, column, value) =>
	server.database.all(`UPDATE apikey SET ${column} = ? WHERE id = ? RETURNING id`, [value, made[kind].id]);
const use = async (kind, times = 1) => {
	for (let i = 0; i < times; i++) await api.verifyApiKey({ body: { key: made[kind].key } });
};
const iso = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

await make("plain");
await make("of somebody else", {}, "bob");
await make("with prefix", { prefix: "acme_" });
await make("without name", { name: undefined });
await make("with empty name", { name: "" });
await make("with metadata", { metadata: { plan: "pro", nested: { list: [1, 2.5, null, "ü"] } } });
await make("with metadata in a list", { metadata: ["a", "b"] });
await make("with metadata written twice", { metadata: { plan: "old" } });
set("with metadata written twice", "metadata", JSON.stringify(JSON.stringify({ plan: "old" })));
await make("with permissions", { permissions: { files: ["read", "write"], users: ["read"] } });
await make("with no permissions at all", { permissions: {} });
await make("with blanks in permissions", { permissions: { "my files": ["read all"] } });
await make("with credits", { remaining: 100 });
await use("with credits", 3);
await make("without credits", { remaining: 1 });
await use("without credits");
await make("with refills", { remaining: 2, refillAmount: 5, refillInterval: 60 * 60 * 1000 });
await use("with refills", 2);
await make("refilled", { remaining: 1, refillAmount: 5, refillInterval: 1000 });
await use("refilled");
set("refilled", "createdAt", iso(-day));
await use("refilled");
await make("with a rate limit", { rateLimitMax: 5, rateLimitTimeWindow: 10 * 60 * 1000 });
await use("with a rate limit", 2);
await make("with a fraction for a rate limit", { rateLimitMax: 1.5, rateLimitTimeWindow: 1000.5 });
await make("with a rate limit of nothing", { rateLimitMax: 0, rateLimitTimeWindow: 1000 });
await make("with rate limiting off", { rateLimitEnabled: false });
await make("that expires", { expiresIn: 30 * day });
await make("that has expired", { expiresIn: 30 * day });
set("that has expired", "expiresAt", iso(-day));
await make("disabled");
await api.updateApiKey({ body: { keyId: made.disabled.id, userId: ids.alice, enabled: false } });
await make("of a second configuration", { configId: "second" });
await make("of an organization", { configId: "team", organizationId: organization.id });
await make("stored without hashing", { configId: "plain" });
await make("of a user who is gone", {}, "bob");
set("of a user who is gone", "referenceId", "gone");
await make("of nobody");
set("of nobody", "referenceId", "");

const rows = Object.fromEntries(server.database.all("SELECT * FROM apikey", []).map((row) => [row.id, row]));
const keys = Object.entries(made).map(([kind, { id, key }]) => ({ kind, key, row: rows[id] }));
await server.close();
process.stdout.write(JSON.stringify({ users: ids, organization: organization.id, keys }), () => process.exit(0));
