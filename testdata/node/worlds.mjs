// The two servers that the same calls are made to. A world mints keys as the
// server itself does, says how somebody presents himself, and makes calls with the
// unmodified client.
import { apiKeyClient } from "@better-auth/api-key/client";
import { createAuthClient } from "better-auth/client";
import { startReference } from "./reference.mjs";

const base = "/api/auth";

// people of both worlds, with their roles in the organization.
export const people = { olga: "owner", mike: "member", sue: null, bob: null };

class World {
	constructor(url) {
		this.url = url;
	}

	// client is the client of somebody who sends these headers.
	client(headers, url = this.url) {
		return createAuthClient({
			baseURL: url + base,
			plugins: [apiKeyClient()],
			fetchOptions: { headers },
		});
	}

	// holder is the client of who holds a key.
	holder(key) {
		return this.client({ "x-api-key": key.key });
	}

	// person is the client of somebody who is signed in.
	person(name) {
		const { headers, url } = this.identity(name);
		return this.client(headers, url);
	}

	// send makes a request as it is.
	async send(method, path, { headers = {}, body, url = this.url } = {}) {
		const answer = await fetch(url + base + path, { method, headers, body });
		const text = await answer.text();
		return {
			status: answer.status,
			type: answer.headers.get("content-type"),
			body: text === "" ? null : JSON.parse(text),
			headers: Object.fromEntries(answer.headers),
		};
	}
}

// Ours is a running Caddy.
export class Ours extends World {
	name = "ours";

	constructor(url, admin) {
		super(url);
		this.admin = admin;
		this.organization = "acme";
	}

	async start() {}
	async close() {}

	async mint(fields) {
		return this.manage("POST", "/apikey/keys", { userId: "alice", permissions: { api: ["read", "write"] }, ...fields });
	}

	async manage(method, path, body) {
		const answer = await fetch(this.admin + path, {
			method,
			headers: { "content-type": "application/json", origin: this.admin },
			body: JSON.stringify(body),
		});
		if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
		return answer.status === 204 ? null : answer.json();
	}

	// identity is how a person presents himself, and where.
	identity(name) {
		const authorization = `Basic ${Buffer.from(`${name}:password`).toString("base64")}`;
		return { url: `${this.url}/person`, headers: { authorization } };
	}

	async ban(name) {
		await this.manage("PUT", `/apikey/owners/${name}`, { enabled: false });
	}

	// pass lets so much time pass since the start, for a key at least.
	async pass(_key, milliseconds) {
		await this.manage("POST", "/apikey/clock", { offsetMs: milliseconds });
	}

	verify(body) {
		return this.holder(this.operator).apiKey.verify(body);
	}

	deleteAllExpired() {
		return this.holder(this.operator).apiKey.deleteAllExpiredApiKeys();
	}
}

// Reference is a real Better Auth server.
export class Reference extends World {
	name = "reference";

	async start() {
		const shared = { enableMetadata: true, defaultPrefix: "ak_", rateLimit: { enabled: true, maxRequests: 100_000, timeWindow: 60_000 } };
		const server = await startReference([
			{ ...shared, configId: "default", enableSessionForAPIKeys: true },
			{ ...shared, configId: "second", enableMetadata: false, requireName: true, keyExpiration: { disableCustomExpiresTime: true } },
			{ ...shared, configId: "limited", keyExpiration: { maxExpiresIn: 365 } },
			{ ...shared, configId: "team", references: "organization" },
		]);
		this.server = server;
		this.url = server.url;
		this.close = server.close;
		this.cookies = {};
		this.ids = {};
		for (const name of ["alice", ...Object.keys(people)]) await this.signUp(name);
		const { id } = await server.auth.api.createOrganization({
			body: { name: "Acme", slug: "acme", userId: this.ids.olga },
		});
		this.organization = id;
		await server.auth.api.addMember({ body: { userId: this.ids.mike, organizationId: id, role: people.mike } });
	}

	async signUp(name) {
		const answer = await fetch(`${this.url + base}/sign-up/email`, {
			method: "POST",
			headers: { "content-type": "application/json", origin: this.url },
			body: JSON.stringify({ name, email: `${name}@example.com`, password: "correct horse" }),
		});
		this.cookies[name] = answer.headers.getSetCookie()[0].split(";")[0];
		this.ids[name] = (await answer.json()).user.id;
	}

	mint(fields) {
		return this.server.auth.api.createApiKey({
			body: { permissions: { api: ["read", "write"] }, ...fields, userId: this.ids[fields?.userId ?? "alice"] },
		});
	}

	identity(name) {
		return { url: this.url, headers: { cookie: this.cookies[name], origin: this.url } };
	}

	async ban(name) {
		this.server.database.all("UPDATE user SET banned = 1 WHERE id = ? RETURNING id", [this.ids[name]]);
	}

	async pass(key, milliseconds) {
		const { expiresAt } = this.server.database.all("SELECT expiresAt FROM apikey WHERE id = ?", [key.id])[0];
		const before = new Date(Date.parse(expiresAt) - milliseconds).toISOString();
		this.server.database.all("UPDATE apikey SET expiresAt = ? WHERE id = ? RETURNING id", [before, key.id]);
	}

	// verify is no route there: it is called in the process.
	verify(body) {
		return this.inside(this.server.auth.api.verifyApiKey({ body }));
	}

	deleteAllExpired() {
		return this.inside(this.server.auth.api.deleteAllExpiredApiKeys());
	}

	async inside(call) {
		try {
			return { data: JSON.parse(JSON.stringify(await call)), error: null };
		} catch (error) {
			return { data: null, error: { ...error.body, status: error.statusCode } };
		}
	}
}
