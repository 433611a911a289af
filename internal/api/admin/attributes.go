package admin

import (
	"encoding/json"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// Attributes are the fields that describe a key, the same in requests, answers and
// exports.
type Attributes struct {
	Metadata api.Optional[json.RawMessage] `json:"metadata,omitzero" doc:"an object of at most 16 KiB, returned as it was sent and replaced as a whole"`
}

func (a Attributes) values() keyring.Attributes { return keyring.Attributes(a) }

func attributesOf(k *key.Key) Attributes { return Attributes(keyring.AttributesOf(k)) }
