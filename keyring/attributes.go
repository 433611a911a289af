package keyring

import (
	"encoding/json"
	"reflect"

	"github.com/caddy-apikey/caddy-apikey/key"
)

// Attributes are the fields of a key that describe it to people and upstreams. Neither
// decisions nor other fields depend on them, so that create, update and import treat all
// of them alike.
type Attributes struct {
	Metadata Field[json.RawMessage]
}

// ties returns the tie of each attribute. Imports pass no rules.
func (a *Attributes) ties(k *key.Key, r *Rules) []tie {
	return []tie{
		tied(&a.Metadata, &k.Metadata, r.checkMetadata),
	}
}

// AttributesOf returns the attributes of a record, set where it has them.
func AttributesOf(k *key.Key) (a Attributes) {
	for _, t := range a.ties(k, nil) {
		t.read()
	}
	return a
}

// Put gives k the attributes that are set, up to the first whose check fails. Imports pass
// no rules.
func (a Attributes) Put(k *key.Key, r *Rules) error {
	for _, t := range a.ties(k, r) {
		if err := t.put(); err != nil {
			return err
		}
	}
	return nil
}

// tie ties an attribute to its field of a record.
type tie struct {
	read func()
	put  func() error
}

// tied returns a tie. check returns the form in which a value is stored; an attribute that
// is cleared is the zero value.
func tied[T any](f *Field[T], of *T, check func(T) (T, error)) tie {
	return tie{
		read: func() {
			if v := *of; !reflect.ValueOf(&v).Elem().IsZero() {
				*f = Field[T]{true, &v}
			}
		},
		put: func() error {
			if !f.Set {
				return nil
			}
			v, err := check(valueOr(*f, *new(T)))
			if err == nil {
				*of = v
			}
			return err
		},
	}
}
