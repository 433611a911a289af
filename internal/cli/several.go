package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

// result is what became of one of several keys: an item of the bulk answer of the
// admin API. Key holds the key object where the call returns one.
type result struct {
	ID     string          `json:"id"`
	Status string          `json:"status"` // "done" or "failed"
	Error  *string         `json:"error"`
	Field  *string         `json:"field"`
	Code   string          `json:"code,omitempty"`
	Key    json.RawMessage `json:"key,omitempty"`
}

// resultOf returns a result as JSON, without a line break.
func resultOf(id string, answer json.RawMessage, err error) []byte {
	r := result{ID: id, Status: "done", Key: answer}
	if err != nil {
		r.Status = "failed"
		text := describe(err)
		var refused *admin.APIError
		if errors.As(err, &refused) {
			text, r.Code = printable(refused.Message), refused.Code
			if refused.Field != "" {
				r.Field = &refused.Field
			}
		}
		r.Error = &text
	}
	out, _ := api.Marshal(r) // a struct of strings and valid JSON
	return out
}

// each calls do for every key that the arguments name, and prints each answer with
// one, which stands for a call with one id. The error says how many have failed.
func each[T any](c *call, l *listing[T], do func(id string) (admin.Answer[T], error), one func(admin.Answer[T], error) error) error {
	if len(c.args) == 1 && !c.filtered {
		a, err := do(c.args[0])
		return one(a, err)
	}
	run := several[T]{call: c, listing: l, one: one}
	if err := run.begin(); err != nil {
		return err
	}
	var away error
	for _, id := range c.args {
		var a admin.Answer[T]
		err := away
		if err == nil {
			a, err = do(id)
		}
		var refused *admin.APIError
		if err != nil && !errors.As(err, &refused) {
			away = err // the endpoint does not answer; it is not asked again
		}
		if err := run.add(id, a, err); err != nil {
			return err
		}
	}
	return run.end()
}

// several prints the answers about several keys.
type several[T any] struct {
	*call
	listing *listing[T]
	one     func(admin.Answer[T], error) error
	items   []T // for formats that show all at once
	added   int
	failed  int
}

func (s *several[T]) begin() error {
	if s.format == asJSON {
		return s.print(`{"results":[`)
	}
	return nil
}

func (s *several[T]) print(text string) error {
	if _, err := fmt.Fprint(s.OutOrStdout(), text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// add prints what became of one key. Its error is about the output only.
func (s *several[T]) add(id string, a admin.Answer[T], err error) error {
	s.added++
	if err != nil {
		s.failed++
		fmt.Fprintf(s.ErrOrStderr(), "Error: %s: %s\n", printable(id), describe(err))
	}
	switch {
	case s.format == asJSON:
		comma := ","
		if s.added == 1 {
			comma = ""
		}
		return s.print(comma + string(resultOf(id, a.Raw, err)))
	case err != nil && s.format == asNDJSON:
		return write(s.OutOrStdout(), string(resultOf(id, nil, err)))
	case err != nil:
		return nil //nolint:nilerr // told and counted above
	case s.listing != nil && (s.format == asCSV || s.format == asName):
		s.items = append(s.items, a.Value)
		return nil
	}
	return s.one(a, nil)
}

func (s *several[T]) end() error {
	var err error
	switch {
	case s.format == asJSON:
		err = s.print(fmt.Sprintf("],\"matched\":%d,\"nextCursor\":null}\n", s.added))
	case s.listing != nil && (s.format == asCSV || s.format == asName):
		err = write(s.OutOrStdout(), s.listing.render(s.call, s.items))
	}
	if err == nil && s.failed > 0 {
		err = fmt.Errorf("%d of %d keys failed", s.failed, s.added)
	}
	return err
}

// anyIDs takes any number of ids. Repeated ones count once.
func anyIDs(args []string) error {
	if slices.Contains(args, "") {
		return WrongUsage("an argument is empty: it must be the id of a key")
	}
	return nil
}

// distinct returns args without repetitions.
func distinct(args []string) (all []string) {
	for _, arg := range args {
		if !slices.Contains(all, arg) {
			all = append(all, arg)
		}
	}
	return all
}
