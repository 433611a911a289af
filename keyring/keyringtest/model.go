package keyringtest

import (
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// input is a call of a client.
type input struct {
	op  string
	arg string // a raw key to use, a name to give
}

// output is the answer to a call. What the call does not show is zero.
type output struct {
	answer string // to a use
	view   View
	done   bool   // whether a key was created or deleted
	raw    string // a new raw key
}

// state is what a key is between two calls.
type state struct {
	View
	raw      string
	previous string // raw keys in their grace, each followed by a comma
}

// model is a key that takes one call after the other.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(before, in, out any) (bool, any) {
		s, answer := before.(state), out.(output)
		want := s.call(in.(input), answer.raw)
		return want == answer, s
	},
}

// call makes a call and returns the answer that is due. Which raw key a rotation makes is
// not for the model to say: it takes the one that the answer shows.
func (s *state) call(in input, raw string) (due output) {
	switch {
	case in.op == opCreate:
		if s.Exists {
			return output{}
		}
		*s = state{View: View{Exists: true, Enabled: true, Permitted: true}, raw: in.arg}
		return output{done: true}
	case in.op == opUse:
		return output{answer: s.use(in.arg)}
	case !s.Exists:
		return output{} // whatever else is asked
	}
	switch in.op {
	case opRotate:
		s.raw, s.previous = raw, ""
		return output{raw: raw}
	case opGrace:
		s.raw, s.previous = raw, s.previous+s.raw+","
		return output{raw: raw}
	case opDelete:
		*s = state{}
		return output{done: true}
	case opEnable, opDisable:
		s.Enabled = in.op == opEnable
	case opPermit, opForbid:
		s.Permitted = in.op == opPermit
	case opRename:
		s.Name = in.arg
	}
	return output{view: s.View} // and that of get and list
}

// use is what the gate answers to a raw key.
func (s *state) use(raw string) string {
	switch {
	case !s.Exists, raw != s.raw && !slices.Contains(strings.Split(s.previous, ","), raw):
		return Invalid
	case !s.Enabled:
		return Disabled
	case !s.Permitted:
		return Forbidden
	}
	return Allowed
}
