package betterauth

var createFields = []field{
	{"configId", false, text},
	{"name", false, text},
	{"expiresIn", false, orNull(numberFrom(1))},
	{"prefix", false, prefix},
	{"remaining", false, orNull(numberFrom(0))},
	{"metadata", false, anything},
	{"refillAmount", false, numberFrom(1)},
	{"refillInterval", false, number},
	{"rateLimitTimeWindow", false, number},
	{"rateLimitMax", false, number},
	{"rateLimitEnabled", false, boolean},
	{"permissions", false, permissions},
	{"userId", false, coerced},
	{"organizationId", false, coerced},
}

var updateFields = []field{
	{"configId", false, text},
	{"keyId", true, text},
	{"userId", false, coerced},
	{"name", false, text},
	{"enabled", false, boolean},
	{"remaining", false, numberFrom(1)},
	{"refillAmount", false, number},
	{"refillInterval", false, number},
	{"metadata", false, anything},
	{"expiresIn", false, orNull(numberFrom(1))},
	{"rateLimitEnabled", false, boolean},
	{"rateLimitTimeWindow", false, number},
	{"rateLimitMax", false, number},
	{"permissions", false, orNull(permissions)},
}

// serverOnly are the fields that nobody may set over this API: limits and rights
// are the operator's business.
var serverOnly = []string{
	"refillAmount", "refillInterval", "rateLimitTimeWindow", "rateLimitMax", "rateLimitEnabled", "permissions",
}

var deleteFields = []field{
	{"configId", false, text},
	{"keyId", true, text},
}

var getFields = []field{
	{"configId", false, text},
	{"id", true, text},
}

var listFields = []field{
	{"configId", false, text},
	{"organizationId", false, text},
	{"limit", false, count},
	{"offset", false, count},
	{"sortBy", false, orEmpty(oneOf(sortable...))},
	{"sortDirection", false, oneOf("asc", "desc")},
}

var verifyFields = []field{
	{"configId", false, text},
	{"key", true, text},
	{"permissions", false, permissions},
}
