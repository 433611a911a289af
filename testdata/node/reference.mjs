// A real Better Auth server with the API-key plugin.
import { createServer } from "node:http";
import { apiKey } from "@better-auth/api-key";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import { organization } from "better-auth/plugins";
import { createAccessControl } from "better-auth/plugins/access";
import { openDatabase } from "./sqlite.mjs";

export async function startReference(configurations, file) {
	const database = openDatabase(file);
	const server = createServer();
	await new Promise((done) => server.listen(0, "127.0.0.1", done));
	const url = `http://127.0.0.1:${server.address().port}`;
	const ac = createAccessControl({ apiKey: ["create", "read", "update", "delete"], member: [], organization: [] });
	const auth = betterAuth({
		baseURL: url,
		secret: "a secret of tests, and of nothing else at all",
		database,
		emailAndPassword: { enabled: true },
		user: { additionalFields: { banned: { type: "boolean", required: false, input: false } } },
		telemetry: { enabled: false },
		rateLimit: { enabled: false },
		logger: { disabled: true },
		plugins: [
			organization({
				ac,
				roles: {
					owner: ac.newRole({ apiKey: ["create", "read", "update", "delete"] }),
					admin: ac.newRole({ apiKey: ["create", "read", "update", "delete"] }),
					member: ac.newRole({ apiKey: ["read"] }),
				},
			}),
			apiKey(configurations),
		],
	});
	await (await getMigrations(auth.options)).runMigrations();
	server.on("request", toNodeHandler(auth));
	return {
		auth,
		url,
		database,
		async close() {
			await new Promise((done) => {
				server.close(done);
				server.closeAllConnections();
			});
			database.close();
		},
	};
}
