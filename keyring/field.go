package keyring

import (
	"bytes"
	"encoding/json"
)

// Field is a value that a change may set or clear. In JSON, a field that is absent is not
// set, and null clears it.
type Field[T any] struct {
	Set   bool
	Value *T // nil with Set: cleared
}

func (f Field[T]) cleared() bool { return f.Set && f.Value == nil }

// MarshalJSON implements json.Marshaler, without the escapes that only HTML needs.
func (f Field[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(f.Value)
	return b.Bytes(), err
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Field[T]) UnmarshalJSON(b []byte) error {
	f.Set = true
	return json.Unmarshal(b, &f.Value)
}
