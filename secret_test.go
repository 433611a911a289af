package apikey

import "testing"

// TestSecrets_weak compares what gates and APIs ask of the same keys.
func TestSecrets_weak(t *testing.T) {
	for _, row := range []struct {
		name      string
		gate, api asking
		weak      bool
	}{
		{"nobody asks", asking{}, asking{}, false},
		{"the gate asks", asking{secret: "check"}, asking{}, true},
		{"the API asks for less", asking{secret: "required"}, asking{secret: "check"}, true},
		{"both ask", asking{secret: "required"}, asking{secret: "required"}, false},
		{"the API asks for more", asking{secret: "check"}, asking{secret: "required"}, false},
		{"an API for all keys", asking{"check", []string{"a"}}, asking{}, true},
		{"a gate for all keys", asking{secret: "check"}, asking{"", []string{"a"}}, true},
		{"some of the same keys", asking{"check", []string{"a", "b"}}, asking{"", []string{"b"}}, true},
		{"other keys", asking{"check", []string{"a"}}, asking{"", []string{"b"}}, false},
	} {
		// One that asks for enough, and a gate that asks for nothing, change nothing.
		s := secrets{gates: []asking{{}, row.gate}, apis: []asking{{secret: "required"}, row.api}}
		if s.weak() != row.weak {
			t.Errorf("%s: %v", row.name, s.weak())
		}
	}
}
