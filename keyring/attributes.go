package keyring

import (
	"cmp"
	"encoding/json"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Attributes are the fields of a key that describe it to people and upstreams. Neither
// decisions nor other fields depend on them, so that create, update and import treat all
// of them alike.
type Attributes struct {
	Metadata Field[json.RawMessage]
}

// AttributesOf returns the attributes of a record, set where it has them.
func AttributesOf(k *key.Key) Attributes {
	return Attributes{
		Metadata: fieldOf(k.Metadata, k.Metadata != nil),
	}
}

// Put gives k the attributes that are set. Each is checked first; the first error is
// returned. Imports pass no rules.
func (a Attributes) Put(k *key.Key, r *Rules) error {
	return cmp.Or(
		put(a.Metadata, &k.Metadata, r.checkMetadata),
	)
}

func fieldOf[T any](v T, set bool) Field[T] {
	if !set {
		return Field[T]{}
	}
	return Field[T]{true, &v}
}

// put replaces a value by that of a field, if the check allows it. A field that is cleared
// has the zero value.
func put[T any](f Field[T], to *T, check func(T) (T, error)) error {
	if !f.Set {
		return nil
	}
	v, err := check(valueOr(f, *new(T)))
	if err == nil {
		*to = v
	}
	return err
}
