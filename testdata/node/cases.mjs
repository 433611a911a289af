// The calls, by name. A call whose answers differ says why.
export const cases = {};

function add(name, call, why) {
	if (cases[name]) throw new Error(`${name} stands twice`);
	cases[name] = { call, why };
}

const json = { "content-type": "application/json" };

// as makes a call as the holder of the usual key.
const as = (w) => w.holder(w.key).apiKey;

// someone makes a call as a person.
const someone = (w) => w.person("sue").apiKey;

// wire picks what is compared of a raw answer.
const wire = ({ status, type, body }) => ({ status, type, body });

// Create: every field with right and wrong values.
const fields = {
	name: ["my key", "", "x", "x".repeat(32), "x".repeat(33), null, 5, [], {}, true],
	expiresIn: [86400, 86400.5, 86399, 31536000, 0, 1, 0.5, -1, 1e300, null, "86400", true],
	prefix: ["my_", "a-b", "", "ä", "a b", "x".repeat(32), "x".repeat(33), null, 5],
	metadata: [{}, { plan: "pro", since: "2026-01-02T03:04:05.000Z", deep: { a: [1, null, true] } }, null, [1], "text", 5, 0, false, ""],
	remaining: [null, 0, 5, -1, "5"],
	refillAmount: [1, 0, null, "1"],
	refillInterval: [1, 0, null, "1"],
	rateLimitTimeWindow: [1000, null, "1"],
	rateLimitMax: [1, null, "1"],
	rateLimitEnabled: [true, false, null, "true"],
	permissions: [{}, { files: ["read"] }, { files: "read" }, { files: [1, "read"], other: null }, [], null, "files"],
	userId: ["alice", "", null, 5],
	organizationId: ["acme", null, 5],
	configId: ["default", "nowhere", "", 5, null],
};
const createWhy = {
	'name ""': "an empty name counts as no name",
	"metadata [1]": "metadata must be an object, as the plugin's own error text says",
	"metadata 0": "metadata must be an object, as the plugin's own error text says",
	"metadata false": "metadata must be an object, as the plugin's own error text says",
	'metadata ""': "metadata must be an object, as the plugin's own error text says",
};
const short = (value) => {
	const text = JSON.stringify(value);
	return text.length > 40 ? `${text.slice(0, 30)}… (${text.length})` : text;
};
for (const [field, values] of Object.entries(fields)) {
	for (const value of values) {
		const name = `${field} ${short(value)}`;
		add(`create: ${name}`, (w) => as(w).create({ [field]: value }), createWhy[name]);
	}
}
add("create: nothing", (w) => as(w).create({}));
add("create: a field that is not known", (w) => as(w).create({ surprise: 1 }));
add("create: everything wrong", (w) =>
	as(w).create({
		...Object.fromEntries(Object.keys(fields).map((field) => [field, field === "metadata" ? 5 : []])),
	}),
);
add("create: several problems, metadata first", (w) =>
	as(w).create({ metadata: 5, expiresIn: 1, prefix: "x".repeat(33), name: "x".repeat(33) }),
);
add("create: several problems, expiry first", (w) =>
	as(w).create({ expiresIn: 1, prefix: "x".repeat(33), name: "x".repeat(33) }),
);
add("create: several problems, prefix first", (w) => as(w).create({ prefix: "x".repeat(33), name: "x".repeat(33) }));
add("create: in another configuration", (w) => as(w).create({ configId: "second", name: "second" }),
	"a key creates keys of its own configuration only, because others might open what it cannot");
add("create: a person, in another configuration", (w) => someone(w).create({ configId: "second", name: "second" }));
add("create: without the name that is required", (w) => someone(w).create({ configId: "second" }));
add("create: with an empty name where one is required", (w) => someone(w).create({ configId: "second", name: "" }));
add("create: with an expiry where it is fixed", (w) =>
	someone(w).create({ configId: "second", name: "second", expiresIn: 86400 }),
);
add("create: with metadata where it is off", (w) =>
	someone(w).create({ configId: "second", name: "second", metadata: { a: 1 } }),
);

// Who calls.
add("create: nobody", (w) => w.client({}).apiKey.create({}));
add("create: nobody, a server-only field", (w) => w.client({}).apiKey.create({ remaining: 1 }));
add("create: nobody, a wrong field", (w) => w.client({}).apiKey.create({ name: 5 }));
add("create: nobody, for an organization", (w) => w.client({}).apiKey.create({ configId: "team" }));
add("get: nobody", (w) => w.client({}).apiKey.get({ query: { id: "x" } }));
add("list: nobody", (w) => w.client({}).apiKey.list());
add("list: nobody, a wrong parameter", (w) => w.client({}).apiKey.list({ query: { limit: "x" } }));
add("update: nobody", (w) => w.client({}).apiKey.update({ keyId: "x", name: "y" }));
add("update: nobody, a server-only field", (w) => w.client({}).apiKey.update({ keyId: "x", remaining: 1 }));
add("delete: nobody", (w) => w.client({}).apiKey.delete({ keyId: "x" }));
add("getSession: nobody", (w) => w.client({}).getSession());
add("list: an unknown key", (w) => w.client({ "x-api-key": "x".repeat(70) }).apiKey.list());
add(
	"list: a key that is too short",
	(w) => w.client({ "x-api-key": "short" }).apiKey.list(),
	"everything that is not a key gets the same answer",
);
const own = (call) => async (w) => call(w, await w.mint({ name: "own" }));
add("list: a disabled key", own(async (w, k) => {
	await as(w).update({ keyId: k.id, enabled: false });
	return w.holder(k).apiKey.list();
}));
const writer = { permissions: { api: ["write"] } };
const renamed = (w, k) => w.holder(k).apiKey.update({ keyId: k.id, name: "renamed" });
add("update: a key over its rate limit", async (w) => {
	const k = await w.mint({ ...writer, rateLimitMax: 1, rateLimitTimeWindow: 60000 });
	await renamed(w, k);
	return renamed(w, k);
});
add("update: a key without credits", async (w) => {
	const k = await w.mint({ ...writer, remaining: 1 });
	await renamed(w, k);
	return renamed(w, k);
});
add("update: a key without credits, once more", async (w) => {
	const k = await w.mint({ ...writer, remaining: 1 });
	for (let i = 0; i < 2; i++) await renamed(w, k);
	return renamed(w, k);
}, "an exhausted key is kept, so that later answers still give the reason");
add("update: a key that waits for its refill", async (w) => {
	const k = await w.mint({ ...writer, remaining: 1, refillAmount: 1, refillInterval: 86400000 });
	await renamed(w, k);
	return renamed(w, k);
}, "the answer also says how long to wait");
add("list: a key over its rate limit", async (w) => {
	const k = await w.mint({ rateLimitMax: 1, rateLimitTimeWindow: 60000 });
	await w.holder(k).apiKey.list();
	const { error } = await w.holder(k).apiKey.list();
	return error ? error.code : "the keys";
}, "who drains a key must not keep its owner from finding and deleting it");
add("delete: a key over its rate limit", async (w) => {
	const k = await w.mint({ ...writer, rateLimitMax: 1, rateLimitTimeWindow: 60000 });
	await renamed(w, k);
	const { error } = await w.holder(k).apiKey.delete({ keyId: k.id });
	return error ? error.code : "deleted";
}, "who drains a key must not keep its owner from finding and deleting it");
add("create: a key without the permission write", async (w) => {
	const k = await w.mint({ permissions: { api: ["read"] } });
	return w.holder(k).apiKey.create({});
}, "changing keys requires the permission write");
add("create: a key with credits", async (w) => {
	const k = await w.mint({ remaining: 10 });
	return w.holder(k).apiKey.create({});
}, "the new key would have credits of its own");
add("create: a longer lifetime than that of the key that calls", async (w) => {
	const k = await w.mint({ expiresIn: 86400 });
	return w.holder(k).apiKey.create({ expiresIn: 2 * 86400 });
}, "nobody can grant more than they have");
add("create: a wrong body is charged all the same", async (w) => {
	const k = await w.mint({ remaining: 5 });
	await w.holder(k).apiKey.update({ keyId: 5 });
	return (await as(w).get({ query: { id: k.id } })).data.remaining;
});
add("update: a wrong content type is not charged", async (w) => {
	const k = await w.mint({ remaining: 5 });
	await w.send("POST", "/api-key/update", { headers: { "x-api-key": k.key, "content-type": "text/plain" }, body: "{}" });
	return (await as(w).get({ query: { id: k.id } })).data.remaining;
});

// Get.
add("get", own((w, k) => as(w).get({ query: { id: k.id } })));
add("get: no id", (w) => as(w).get({ query: {} }));
add("get: an empty id", (w) => as(w).get({ query: { id: "" } }));
add("get: an id that there is not", (w) => as(w).get({ query: { id: "x" } }));
add("get: everything wrong", async (w) =>
	wire(await w.send("GET", "/api-key/get?id=1&id=2&configId=1&configId=2", { headers: { "x-api-key": w.key.key } })));
add("get: somebody else's", async (w) => {
	const k = await w.mint({ userId: "sue" });
	return as(w).get({ query: { id: k.id } });
});
const second = (w) => w.mint({ configId: "second", name: "second" });
add("get: of another configuration", async (w) => as(w).get({ query: { id: (await second(w)).id } }));
add("get: of the configuration that is named", async (w) =>
	as(w).get({ query: { id: (await second(w)).id, configId: "second" } }));
add("get: of the default, another configuration named", own((w, k) =>
	as(w).get({ query: { id: k.id, configId: "second" } })));
add("get: of the default, an unknown configuration named", own((w, k) =>
	as(w).get({ query: { id: k.id, configId: "nowhere" } })));

// A list is in the order in which keys were made, and what was made in the same
// millisecond has none.
async function later() {
	const now = Date.now();
	while (Date.now() === now) await new Promise(setImmediate);
}

// List. These keys have an owner of their own.
async function shelf(w) {
	if (!w.shelf) {
		await later();
		w.shelf = await w.mint({ userId: "sue", name: "b", permissions: { api: ["read", "write"] } });
		await later();
		await w.mint({ userId: "sue", name: "a", expiresIn: 90000, remaining: 7 });
		await later();
		await w.mint({ userId: "sue", name: "c", prefix: "zz_", remaining: 3, refillAmount: 3, refillInterval: 1000 });
	}
	return w.holder(w.shelf).apiKey;
}
const names = ({ data, error }) => (error ? { error } : { ...data, apiKeys: data.apiKeys.map((k) => k.name) });
add("list", async (w) => (await shelf(w)).list(), "listing keys is no use of a key");
const queries = [
	{ limit: 2 }, { limit: 0 }, { limit: "" }, { offset: 1 }, { limit: 1, offset: 1 }, { offset: 99 }, { limit: 1e3 },
	{ limit: "x" }, { limit: -1 }, { limit: -1.5 }, { limit: 1.5 }, { limit: "1e1" }, { limit: "0x2" }, { limit: " 2 " }, { limit: "0b1" }, { limit: "1_0" }, { limit: "Infinity" },
	{ limit: "-Infinity" }, { limit: "9007199254740993" }, { limit: "-9007199254740993" }, { offset: "x", limit: "x", sortDirection: "up" },
	{ sortBy: "name" }, { sortBy: "name", sortDirection: "desc" }, { sortBy: "name", sortDirection: "DESC" }, { sortDirection: "desc" },
	{ sortBy: "" }, { sortBy: "remaining" }, { sortBy: "remaining", sortDirection: "desc" }, { sortBy: "expiresAt" }, { sortBy: "prefix" },
	{ sortBy: "createdAt", sortDirection: "desc" }, { sortBy: "refillAmount" },
	{ configId: "default" }, { configId: "second" }, { configId: "nowhere" }, { configId: "" },
	{ organizationId: "nowhere" },
];
for (const query of queries) {
	add(`list: ${new URLSearchParams(query)}`, async (w) => names(await (await shelf(w)).list({ query })));
}
add("list: sortBy=nothing", async (w) => {
	await shelf(w);
	const { status, body } = await w.send("GET", "/api-key/list?sortBy=nothing", { headers: { "x-api-key": w.shelf.key } });
	return { status, code: body?.code };
}, "an unknown sort order is a mistake of the caller");
add("list: parameters that stand twice", async (w) => {
	await shelf(w);
	return wire(await w.send("GET", "/api-key/list?configId=a&configId=b&organizationId=a&organizationId=b&limit=1&limit=2&offset=1&offset=2&sortBy=name&sortBy=id&sortDirection=asc&sortDirection=asc", { headers: { "x-api-key": w.shelf.key } }));
});
add("list: 150 keys", async (w) => {
	const first = await w.mint({ userId: "mike" });
	for (let i = 1; i < 150; i++) await w.mint({ userId: "mike", name: `key ${i}` });
	const list = w.holder(first).apiKey.list;
	const pages = [];
	for (let offset = 0; offset < 200; offset += 40) {
		pages.push((await list({ query: { limit: 40, offset } })).data.apiKeys.length);
	}
	return { total: (await list()).data.total, pages };
}, "all keys are listed");

// Update.
const updates = {
	name: ["new name", "", "x".repeat(33), null, 5],
	enabled: [false, true, null, "true"],
	expiresIn: [86400, 86399, 0, null, "1"],
	metadata: [{ plan: "free" }, {}, null, [], 5, "text", false],
	remaining: [1, 0, null, 5, "1"],
	refillAmount: [1, 0, null],
	refillInterval: [1, null],
	rateLimitEnabled: [true, null],
	rateLimitTimeWindow: [1, null],
	rateLimitMax: [1, null],
	permissions: [{}, null, { files: ["read"] }, 5, { files: [1] }],
	userId: ["nobody", "", null],
	configId: ["default", "second", "nowhere", 5, null],
};
const metadataWhy = "metadata must be an object, as the plugin's own error text says";
for (const [field, values] of Object.entries(updates)) {
	for (const value of values) {
		const name = `${field} ${short(value)}`;
		add(`update: ${name}`, own((w, k) => as(w).update({ keyId: k.id, [field]: value })), name === "metadata []" ? metadataWhy : undefined);
	}
}
add("update: nothing", own((w, k) => as(w).update({ keyId: k.id })));
add("update: no keyId", (w) => as(w).update({ name: "x" }));
add("update: the own userId", own(async (w, k) => as(w).update({ keyId: k.id, userId: k.referenceId ?? k.userId, name: "x" })));
add("update: everything", own((w, k) => as(w).update({ keyId: k.id, name: "x", enabled: false, expiresIn: 86400, metadata: { a: 1 } })));
add("update: everything wrong", (w) =>
	as(w).update({ keyId: 5, ...Object.fromEntries(Object.keys(updates).map((field) => [field, field === "metadata" ? 5 : []])) }));
add("update: several problems", own((w, k) => as(w).update({ keyId: k.id, metadata: 5, expiresIn: 1, name: "" })));
add("update: several problems, expiry first", own((w, k) => as(w).update({ keyId: k.id, metadata: 5, expiresIn: 1 })));
add("update: a key that there is not", (w) => as(w).update({ keyId: "x", name: "y" }));
add("update: a key that there is not, and a wrong value", (w) => as(w).update({ keyId: "x", name: "" }));
add("update: somebody else's", async (w) => {
	const k = await w.mint({ userId: "sue" });
	return as(w).update({ keyId: k.id, name: "mine" });
});
add("update: of another configuration", async (w) => as(w).update({ keyId: (await second(w)).id, name: "x" }));
add("update: metadata where it is off", async (w) =>
	as(w).update({ keyId: (await second(w)).id, configId: "second", metadata: { a: 1 } }));
add("update: metadata where it is off, and a name", async (w) =>
	as(w).update({ keyId: (await second(w)).id, configId: "second", metadata: { a: 1 }, name: "x" }));
add("update: the expiry where it is fixed", async (w) =>
	as(w).update({ keyId: (await second(w)).id, configId: "second", expiresIn: null }));
// A maximum. Without one, the reference has that of a year all the same.
const limited = { configId: "limited" };
const maximumWhy = "a maximum that can be left out is none";
add("create: the maximum", (w) => someone(w).create({ ...limited, expiresIn: 31536000 }));
add("create: beyond the maximum", (w) => someone(w).create({ ...limited, expiresIn: 31536001 }));
add("create: no lifetime where there is a maximum", (w) => someone(w).create(limited), maximumWhy);
add("create: expiresIn null where there is a maximum", (w) => someone(w).create({ ...limited, expiresIn: null }), maximumWhy);
const bounded = async (w, change) => {
	const made = await someone(w).create({ ...limited, expiresIn: 86400 });
	return someone(w).update({ ...limited, keyId: made.data.id, ...change });
};
add("update: the maximum", (w) => bounded(w, { expiresIn: 31536000 }));
add("update: beyond the maximum", (w) => bounded(w, { expiresIn: 31536001 }));
add("update: no lifetime where there is a maximum", (w) => bounded(w, { name: "new" }));
add("update: expiresIn null where there is a maximum", (w) => bounded(w, { expiresIn: null }), maximumWhy);

add("update: a key with more permissions is enabled", async (w) => {
	const k = await w.mint({ permissions: { api: ["admin"] } });
	await as(w).update({ keyId: k.id, enabled: false });
	return as(w).update({ keyId: k.id, enabled: true });
}, "nobody can grant more than they have, and enabling a key is like creating one");
add("update: updatedAt moves", own(async (w, k) => {
	await new Promise((done) => setTimeout(done, 5)); // two times that could not differ would show nothing
	const { data } = await as(w).update({ keyId: k.id, name: "x" });
	return data.updatedAt.getTime() > data.createdAt.getTime();
}), "an update is a change");
add("update: without arguments", (w) => as(w).update({}));

// Delete.
add("delete", own((w, k) => as(w).delete({ keyId: k.id })));
add("delete: twice", own(async (w, k) => {
	await as(w).delete({ keyId: k.id });
	return as(w).delete({ keyId: k.id });
}));
add("delete: no keyId", (w) => as(w).delete({}));
add("delete: everything wrong", (w) => as(w).delete({ keyId: 5, configId: 5 }));
add("delete: somebody else's", async (w) => {
	const k = await w.mint({ userId: "sue" });
	return as(w).delete({ keyId: k.id });
});
add("delete: of another configuration", async (w) => as(w).delete({ keyId: (await second(w)).id }));
add("delete: of the configuration that is named", async (w) =>
	as(w).delete({ keyId: (await second(w)).id, configId: "second" }));
add("delete: the key that calls", async (w) => {
	const k = await w.mint({});
	const first = await w.holder(k).apiKey.delete({ keyId: k.id });
	return { first, then: await w.holder(k).apiKey.list() };
});

// Sessions.
add("getSession: a key", async (w) => {
	const { data } = await w.holder(w.key).getSession();
	delete data.user.banned; // a field that only this server has been given
	return data;
}, "user data is not stored here, a session does not repeat the key, and it has the address that Caddy takes for the client's");
add("getSession: a key that expires", async (w) => {
	const k = await w.mint({ expiresIn: 90000 });
	const { data } = await w.holder(k).getSession();
	return Math.round((data.session.expiresAt - Date.now()) / 60000);
});
add("getSession: how long, for a key that does not expire", async (w) => {
	const { data } = await w.holder(w.key).getSession();
	return Math.round((data.session.expiresAt - Date.now()) / 60000);
}, "the session lasts seven days; the plugin treats seconds as milliseconds");
add("getSession: a key of a configuration without sessions", async (w) =>
	w.holder(await w.mint({ configId: "second", name: "second" })).getSession(),
	"the holder may know that the key is valid");
add("getSession: a person", async (w) => {
	const { data } = await w.person("olga").getSession();
	return Object.keys(data).sort();
});
add("getSession: headers", async (w) => {
	const { status, headers } = await w.send("GET", "/get-session");
	return { status, cache: headers["cache-control"], pragma: headers.pragma };
});
add("getSession: headers, with a key", async (w) => {
	const { status, headers } = await w.send("GET", "/get-session", { headers: { "x-api-key": w.key.key } });
	return { status, cache: headers["cache-control"], pragma: headers.pragma };
}, "answers about keys must not be cached");

// Verify.
add("verify", own((w, k) => w.verify({ key: k.key })));
add("verify: no key", (w) => w.verify({ permissions: { files: ["read"] } }));
add("verify: everything wrong", (w) => w.verify({ key: 5, permissions: 5, configId: 5 }));
add("verify: a key that there is not", (w) => w.verify({ key: "x" }));
add("verify: an empty key", (w) => w.verify({ key: "" }));
add("verify: counts", own(async (w, k) => {
	for (let i = 0; i < 2; i++) await w.verify({ key: k.key });
	return (await w.verify({ key: k.key })).data.key.requestCount;
}));
add("verify: a disabled key", own(async (w, k) => {
	await as(w).update({ keyId: k.id, enabled: false });
	return w.verify({ key: k.key });
}));
add("verify: the permission is there", async (w) => {
	const k = await w.mint({ permissions: { files: ["read", "write"], other: ["x"] } });
	return w.verify({ key: k.key, permissions: { files: ["read", "write"], other: ["x"] } });
});
const permissionWhy = "a missing permission has a code of its own";
add("verify: a permission is missing", async (w) => {
	const k = await w.mint({ permissions: { files: ["read"] } });
	return w.verify({ key: k.key, permissions: { files: ["read", "write"] } });
}, permissionWhy);
add("verify: permissions of nothing", own((w, k) => w.verify({ key: k.key, permissions: {} })), permissionWhy);
add("verify: no action of a resource", own((w, k) => w.verify({ key: k.key, permissions: { api: [] } })), permissionWhy);
add("verify: a resource that JavaScript knows", own((w, k) => w.verify({ key: k.key, permissions: { toString: ["read"] } })),
	"a message is always text, and there is no internal failure");
add("verify: permissions with wildcards", async (w) => {
	const k = await w.mint({ permissions: { files: ["*"] } });
	return (await w.verify({ key: k.key, permissions: { files: ["read"] } })).data.valid;
}, 'the action "*" of a key grants every action');
add("verify: of the configuration that is named", own((w, k) => w.verify({ key: k.key, configId: "default" })));
add("verify: of another configuration", own((w, k) => w.verify({ key: k.key, configId: "second" })));
add("verify: of an unknown configuration", own((w, k) => w.verify({ key: k.key, configId: "nowhere" })));
add("verify: of another configuration, none named", async (w) =>
	w.verify({ key: (await w.mint({ configId: "second", name: "second" })).key }));
add("verify: over the rate limit", async (w) => {
	const k = await w.mint({ rateLimitMax: 1, rateLimitTimeWindow: 60000 });
	await w.verify({ key: k.key });
	return w.verify({ key: k.key });
});
add("verify: what the rate limit refuses costs nothing", async (w) => {
	const k = await w.mint({ rateLimitMax: 2, rateLimitTimeWindow: 60000, remaining: 10 });
	for (let i = 0; i < 5; i++) await w.verify({ key: k.key });
	return (await as(w).get({ query: { id: k.id } })).data.remaining;
}, "a refused request costs nothing");
add("verify: a steady caller below its rate limit", async (w) => {
	// The pauses leave time for a slow machine: the plugin forgets after a whole window.
	const k = await w.mint({ rateLimitMax: 3, rateLimitTimeWindow: 3000 });
	const valid = [];
	for (let i = 0; i < 4; i++) {
		if (i > 0) await new Promise((done) => setTimeout(done, 1050));
		valid.push((await w.verify({ key: k.key })).data.valid);
	}
	return valid;
}, "a window ends after its length, not after a pause of that length");
add("verify: the last credit", async (w) => {
	const k = await w.mint({ remaining: 1 });
	const first = await w.verify({ key: k.key });
	return { remaining: first.data.key.remaining, then: (await w.verify({ key: k.key })).data.error };
});
add("verify: after the last credit", async (w) => {
	const k = await w.mint({ remaining: 1 });
	for (let i = 0; i < 2; i++) await w.verify({ key: k.key });
	return (await w.verify({ key: k.key })).data.error;
}, "an exhausted key is kept, so that later answers still give the reason");
add("verify: by a key without the permission admin", async (w) => {
	const { error } = await as(w).verify({ key: w.key.key });
	return error;
}, "clients with an admin key can call verify here");
add("verify: by nobody", async (w) => (await w.client({}).apiKey.verify({ key: w.key.key })).error,
	"clients with an admin key can call verify here");
add("deleteAllExpired: by a key without the permission admin", async (w) => (await as(w).deleteAllExpiredApiKeys()).error,
	"clients with an admin key can call it here");
add("deleteAllExpired: by nobody", async (w) => (await w.client({}).apiKey.deleteAllExpiredApiKeys()).error,
	"clients with an admin key can call it here");

// People.
add("a person: create", (w) => w.person("sue").apiKey.create({ name: "hers" }));
add("a person: create and list", async (w) => {
	const hers = w.person("mike").apiKey;
	const { data } = await hers.create({ name: "found again" });
	const { data: list } = await hers.list({ query: { sortBy: "createdAt", sortDirection: "desc", limit: 1 } });
	return list.apiKeys[0].id === data.id;
});
const banned = async (w) => {
	const person = w.person("bob").apiKey;
	if (!w.banned) {
		w.banned = (await person.create({ name: "his" })).data;
		await w.ban("bob");
	}
	return person;
};
add("a person who is banned: delete", async (w) => (await banned(w)).delete({ keyId: w.banned.id }));
add("a person who is banned: create", async (w) => (await banned(w)).create({}), "a disabled owner cannot do anything, and its keys stop working");
add("a person who is banned: his key", async (w) => {
	await banned(w);
	return w.holder(w.banned).apiKey.list({ query: { limit: 0 } });
}, "a disabled owner cannot do anything, and its keys stop working");

// Organizations.
const team = (w, name = "olga") => w.person(name).apiKey;
const teamKey = async (w) =>
	(await team(w).create({ configId: "team", organizationId: w.organization, name: "team" })).data;
add("organization: create", (w) => team(w).create({ configId: "team", organizationId: w.organization }));
add("organization: create, none named", (w) => team(w).create({ configId: "team" }));
add("organization: create, null named", (w) => team(w).create({ configId: "team", organizationId: null }));
add("organization: create, another one", (w) => team(w).create({ configId: "team", organizationId: "nowhere" }));
add("organization: create, a role that may not", (w) =>
	team(w, "mike").create({ configId: "team", organizationId: w.organization }));
add("organization: create, no member", (w) => team(w, "sue").create({ configId: "team", organizationId: w.organization }));
add("organization: get", async (w) => team(w).get({ query: { id: (await teamKey(w)).id, configId: "team" } }));
add("organization: get, a role that may", async (w) =>
	team(w, "mike").get({ query: { id: (await teamKey(w)).id, configId: "team" } }));
add("organization: get, no member", async (w) =>
	team(w, "sue").get({ query: { id: (await teamKey(w)).id, configId: "team" } }),
	"whether another owner's key exists is not revealed");
add("organization: get, the configuration not named", async (w) => team(w).get({ query: { id: (await teamKey(w)).id } }));
add("organization: update", async (w) => team(w).update({ keyId: (await teamKey(w)).id, configId: "team", name: "new" }));
add("organization: update, a role that may not", async (w) =>
	team(w, "mike").update({ keyId: (await teamKey(w)).id, configId: "team", name: "new" }));
add("organization: delete, a role that may not", async (w) =>
	team(w, "mike").delete({ keyId: (await teamKey(w)).id, configId: "team" }));
add("organization: delete", async (w) => team(w).delete({ keyId: (await teamKey(w)).id, configId: "team" }));
const count = ({ data, error }) => (error ? { error } : [...new Set(data.apiKeys.map((k) => k.configId))]);
add("organization: list", async (w) => count(await team(w).list({ query: { organizationId: w.organization } })));
add("organization: list, a role that may", async (w) =>
	count(await team(w, "mike").list({ query: { organizationId: w.organization } })));
add("organization: list, no member", async (w) =>
	count(await team(w, "sue").list({ query: { organizationId: w.organization } })));
add("organization: list, the own keys", async (w) => {
	await team(w).create({ name: "her own" });
	return count(await team(w).list());
});
add("organization: list, its configuration without it", async (w) => count(await team(w).list({ query: { configId: "team" } })));
add("organization: list, with a configuration of users", async (w) =>
	count(await team(w).list({ query: { configId: "default", organizationId: w.organization } })));
add("organization: its key as a session", async (w) => {
	const k = await teamKey(w);
	return (await w.holder(k).getSession()).error;
}, "the holder may know that the key is valid");
add("organization: its key as a caller", async (w) => {
	const k = await teamKey(w);
	return (await w.holder(k).apiKey.list()).error;
}, "the holder may know that the key is valid");
add("organization: its key is verified", async (w) => (await w.verify({ key: (await teamKey(w)).key })).data.valid);

// The wire.
const holding = (w, headers = {}) => ({ "x-api-key": w.key.key, ...headers });
const bodies = { "no body": undefined, "an empty body": "", "null": "null", "a list": "[]", "a number": "5", "text": '"x"', "broken JSON": "{", "a name that stands twice": '{"name":"a","name":"b"}' };
for (const [name, body] of Object.entries(bodies)) {
	add(`wire: ${name}`, async (w) => wire(await w.send("POST", "/api-key/create", { headers: holding(w, json), body })));
}
for (const type of ["text/plain", "text/plain; charset=utf-8", "application/json; charset=utf-8", "APPLICATION/JSON", "application/x-www-form-urlencoded", "application/problem+json"]) {
	add(`wire: content type ${type}`, async (w) => {
		const { status, type: answered, body } = await w.send("POST", "/api-key/delete", { headers: holding(w, { "content-type": type }), body: "{}" });
		return { status, type: answered, body };
	});
}
add("wire: no content type", async (w) =>
	wire(await w.send("POST", "/api-key/create", { headers: holding(w), body: new Uint8Array([123, 125]) })));
for (const [method, path] of [["GET", "/api-key/list/"], ["POST", "/api-key/list"], ["GET", "/api-key/create"], ["PUT", "/api-key/update"], ["DELETE", "/api-key/delete"], ["OPTIONS", "/api-key/create"], ["HEAD", "/api-key/list"]]) {
	add(`wire: ${method} ${path}`, async (w) => wire(await w.send(method, path, { headers: holding(w) })));
}
add("wire: an unknown path", async (w) => (await w.send("GET", "/api-key/nothing", { headers: holding(w) })).status,
	"every other path goes to the next handler");
add("wire: success is 200", async (w) => (await w.send("POST", "/api-key/create", { headers: holding(w, json), body: "{}" })).status);
add("wire: the order of the fields of a key", async (w) => {
	const { body } = await w.send("POST", "/api-key/create", { headers: holding(w, json), body: "{}" });
	return Object.keys(body);
});
for (const origin of ["https://evil.example", "null"]) {
	add(`wire: a page of the origin ${origin} makes a person's browser create a key`, async (w) => {
		const { url, headers } = w.identity("olga");
		return wire(await w.send("POST", "/api-key/create", { url, headers: { ...json, ...headers, origin }, body: "{}" }));
	});
	add(`wire: a page of the origin ${origin} makes a person's browser list keys`, async (w) => {
		const { url, headers } = w.identity("olga");
		return (await w.send("GET", "/api-key/list?limit=0", { url, headers: { ...headers, origin } })).status;
	});
}
add("wire: a person without an origin", async (w) => {
	const { url, headers } = w.identity("olga");
	const { origin: _, ...rest } = headers;
	return wire(await w.send("POST", "/api-key/delete", { url, headers: { ...json, ...rest }, body: "{}" }));
}, "a client that sends no origin is not a browser");
add("wire: a key from a page of another origin", async (w) =>
	(await w.send("POST", "/api-key/delete", { headers: holding(w, { ...json, origin: "https://evil.example" }), body: "{}" })).status);
add("wire: CORS, another origin asks", async (w) => {
	const { status, headers } = await w.send("OPTIONS", "/api-key/create", {
		headers: { origin: "https://app.example.com", "access-control-request-method": "POST", "access-control-request-headers": "content-type" },
	});
	return { status, allowed: headers["access-control-allow-origin"], credentials: headers["access-control-allow-credentials"] };
}, "pages of trusted_origins can call; the plugin does not handle CORS");
add("wire: CORS, another origin reads", async (w) => {
	const { status, headers } = await w.send("GET", "/api-key/list?limit=0", { headers: holding(w, { origin: "https://app.example.com" }) });
	return { status, allowed: headers["access-control-allow-origin"] };
}, "pages of trusted_origins can call; the plugin does not handle CORS");
add("wire: CORS, an origin that is not trusted", async (w) => {
	const { status, headers } = await w.send("GET", "/api-key/list?limit=0", { headers: holding(w, { origin: "https://evil.example" }) });
	return { status, allowed: headers["access-control-allow-origin"] };
});

// Expiry comes last: it moves the clock.
const day = 24 * 60 * 60 * 1000;
const expired = async (w) => {
	const k = await w.mint({ expiresIn: 86400 });
	await w.pass(k, (w.days = (w.days ?? 0) + 2) * day);
	return k;
};
add("expired: as a caller", async (w) => w.holder(await expired(w)).apiKey.list());
add("expired: as a caller, once more", async (w) => {
	const k = await expired(w);
	await w.holder(k).apiKey.list();
	return w.holder(k).apiKey.list();
}, "an expired key is kept for a while, so that later answers still give the reason");
add("expired: verify", async (w) => w.verify({ key: (await expired(w)).key }));
add("expired: deleteAllExpired", async (w) => {
	const gone = await expired(w);
	const kept = await w.mint({ expiresIn: 86400 });
	const { data } = await w.deleteAllExpired();
	const found = async (k) => (await as(w).get({ query: { id: k.id } })).data !== null;
	return { data, gone: await found(gone), kept: await found(kept) };
});
