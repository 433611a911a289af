// Package admin is the admin API: its wire types, its HTTP handler and its
// client. It knows nothing of Caddy.
//
// # One table
//
// Each call is a [route] made from a function of a typed input and a typed
// answer. Decoding, the OpenAPI document and the client follow from those types:
// their struct tags are the only place where a field and its limits are written.
//
// # Tags
//
//	json     name in a body or an answer; omitempty and omitzero: may be absent
//	query    name in the query
//	min, max range of an integer (default 0 and 2^53-1) or length of a string or list
//	enum     allowed strings, separated by "|"
//	null     "no": null is refused
//	doc      description for the OpenAPI document
//
// In answers a pointer is null where there is no value. In bodies a pointer is
// optional, and null is the same as leaving the field out; an [Optional] tells
// the two apart.
//
// # Errors
//
// Every error is an [Error]: a sentence, a code, and the field that is to blame.
// None repeats a value that was sent.
package admin
