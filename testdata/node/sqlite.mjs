// An SQLite database, as Better Auth's adapter wants it: the interface of
// better-sqlite3, over a build of SQLite that needs no compiler and no download.
import sqlite from "node-sqlite3-wasm";

export function openDatabase(file = ":memory:") {
	const db = new sqlite.Database(file);
	return {
		aggregate: true, // by this the adapter knows better-sqlite3
		prepare: (sql) => ({
			reader: /^\s*(select|pragma|with)\b|\breturning\b/i.test(sql),
			all: (values) => db.all(sql, values),
			run: (values) => db.run(sql, values),
		}),
		all: (sql, values) => db.all(sql, values),
		close: () => db.close(),
	};
}
