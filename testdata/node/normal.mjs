// Makes answers comparable: what must differ from run to run is replaced, and what
// is said of it is checked on the way.
const date = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

const placeholders = {
	id: (v) => (/^([0-9a-f]{24}|[0-9A-Za-z]{32}|alice)$/.test(v) ? "<id>" : v),
	key: (v) => (typeof v === "string" && v.length >= 64 ? "<key>" : v),
	start: (v) => (typeof v === "string" ? `<${v.length} characters>` : v),
	referenceId: () => "<owner>",
	userId: () => "<owner>",
	token: (v) => (typeof v === "string" && v.length >= 64 ? "<key>" : "<id>"),
	tryAgainIn: (v) => (Number.isInteger(v) && v > 0 ? "<milliseconds>" : v),
	userAgent: () => "<agent>",
};

export function normal(v, name = "") {
	if (v instanceof Date) return "<date>";
	if (v === undefined) return null;
	if (typeof v === "string" && date.test(v)) return "<date>";
	if (Array.isArray(v)) return v.map((item) => normal(item));
	if (v === null || typeof v !== "object") return placeholders[name]?.(v) ?? v;
	return Object.fromEntries(
		Object.entries(v)
			.filter(([field]) => field !== "statusText") // a server chooses no reason phrase
			.map(([field, value]) => [field, normal(value, field)]),
	);
}
