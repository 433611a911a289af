// Makes the same calls to a running Caddy and to a real Better Auth server, and
// prints what each answered, as JSON:
//
//	node conformance.mjs <URL of the site> <URL of the admin endpoint>
import { cases } from "./cases.mjs";
import { normal } from "./normal.mjs";
import { Ours, Reference } from "./worlds.mjs";

async function run(world) {
	await world.start();
	world.key = await world.mint({ name: "caller" });
	world.operator = world.name === "ours" ? await world.mint({ name: "operator", userId: "root", permissions: { api: ["admin"] } }) : null;
	const answers = {};
	for (const [name, { call }] of Object.entries(cases)) {
		try {
			answers[name] = normal(await call(world));
		} catch (error) {
			throw new Error(`${world.name}: ${name}`, { cause: error });
		}
	}
	await world.close();
	return answers;
}

const [url, admin] = process.argv.slice(2);
const ours = await run(new Ours(url, admin));
const reference = await run(new Reference());
const results = Object.entries(cases).map(([name, { why }]) => ({
	name,
	why,
	ours: ours[name],
	reference: reference[name],
}));
process.stdout.write(JSON.stringify(results), () => process.exit(0)); // connections that idle end
