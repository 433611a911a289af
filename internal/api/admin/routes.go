package admin

import (
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
)

const (
	get    = http.MethodGet
	post   = http.MethodPost
	put    = http.MethodPut
	patch  = http.MethodPatch
	remove = http.MethodDelete
)

// Routes returns the table of all calls, by their paths below [Base].
func Routes() []*api.Route { return (&server{}).routes() }

func (s *server) routes() []*api.Route {
	return []*api.Route{
		{Name: "createKey", Method: post, Path: "/keys", Status: 201, Conflict: true, Endpoint: api.WithBody(createKey), Summary: "Create a key"},
		{Name: "listKeys", Method: get, Path: "/keys", Status: 200, Endpoint: api.WithQuery(listKeys), Summary: "List keys"},
		{Name: "deleteExpired", Method: post, Path: "/keys/delete-expired", Status: 200, OptionalBody: true, Endpoint: api.Plain(deleteExpired), Summary: "Delete all expired keys"},
		{Name: "importKeys", Method: post, Path: "/keys/import", Status: 200, MaxBody: MaxImportBody, Endpoint: api.WithBody(importKeys), Summary: "Import keys and owners from another server"},
		{Name: "exportKeys", Method: get, Path: "/keys/export", Status: 200, Endpoint: api.Plain(exportKeys), Stream: exportLines, Summary: "Export all owners and keys, with their hashes"},
		{Name: "getKey", Method: get, Path: "/keys/{id}", Status: 200, Endpoint: api.Plain(getKey), Summary: "Show a key"},
		{Name: "patchKey", Method: patch, Path: "/keys/{id}", Status: 200, Conflict: true, Endpoint: api.WithBody(patchKey), Summary: "Change a key"},
		{Name: "deleteKey", Method: remove, Path: "/keys/{id}", Status: 204, Endpoint: api.Plain(deleteKey), Summary: "Delete a key"},
		{Name: "rotateKey", Method: post, Path: "/keys/{id}/rotate", Status: 200, Conflict: true, OptionalBody: true, Endpoint: api.WithBody(rotateKey), Summary: "Replace the raw key of a key"},
		{Name: "endGrace", Method: post, Path: "/keys/{id}/end-grace", Status: 200, OptionalBody: true, Endpoint: api.Plain(endGrace), Summary: "End all previous raw keys of a key"},
		{Name: "keyUsage", Method: get, Path: "/keys/{id}/usage", Status: 200, Endpoint: api.WithQuery(keyUsage), Summary: "Show the usage of a key"},
		{Name: "verifyKey", Method: post, Path: "/verify", Status: 200, Endpoint: api.WithBody(verifyKey), Summary: "Verify a raw key, and count it as a use"},
		{Name: "listOwners", Method: get, Path: "/owners", Status: 200, Endpoint: api.WithQuery(listOwners), Summary: "List owners"},
		{Name: "getOwner", Method: get, Path: "/owners/{userId}", Status: 200, Endpoint: api.Plain(getOwner), Summary: "Show an owner"},
		{Name: "putOwner", Method: put, Path: "/owners/{userId}", Status: 200, Endpoint: api.WithBody(putOwner), Summary: "Create or change an owner"},
		{Name: "deleteOwner", Method: remove, Path: "/owners/{userId}", Status: 204, Endpoint: api.Plain(deleteOwner), Summary: "Delete an owner with all keys"},
		{Name: "ownerUsage", Method: get, Path: "/owners/{userId}/usage", Status: 200, Endpoint: api.WithQuery(ownerUsage), Summary: "Show the usage of an owner's keys, deleted ones included"},
		{Name: "listAudit", Method: get, Path: "/audit", Status: 200, Endpoint: api.WithQuery(listAudit), Summary: "List the audit log, the newest entries first"},
		{Name: "report", Method: get, Path: "/report", Status: 200, Endpoint: api.WithQuery(report), Summary: "Report keys that security standards object to"},
		{Name: "listDeliveries", Method: get, Path: "/webhooks", Status: 200, Endpoint: api.WithQuery(listDeliveries), Summary: "List events that webhooks have not taken"},
		{Name: "retryDelivery", Method: post, Path: "/webhooks/{id}/retry", Status: 200, OptionalBody: true, Endpoint: api.Plain(retryDelivery), Summary: "Send an event to its webhook again"},
		{Name: "listTiers", Method: get, Path: "/tiers", Status: 200, Endpoint: api.Plain(listTiers), Summary: "List the configured tiers"},
		{Name: "listConfigs", Method: get, Path: "/configs", Status: 200, Endpoint: api.Plain(listConfigs), Summary: "List the configurations, and how their raw keys look"},
		{Name: "backup", Method: get, Path: "/backup", Status: 200, Endpoint: api.Plain(backup), File: BackupType, Summary: "Copy the database"},
		{Name: "health", Method: get, Path: "/health", Status: 200, Public: true, Unavailable: Unhealthy{}, Endpoint: api.Plain(s.health), Summary: "Ask the store whether it works"},
		{Name: "openapi", Method: get, Path: "/openapi.json", Status: 200, Public: true, Endpoint: api.Document(), Summary: "This document"},
	}
}
