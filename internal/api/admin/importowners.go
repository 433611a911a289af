package admin

import (
	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// onceEach reads records of owners, of which none may stand twice: two of them
// could say different things.
func onceEach(sent []api.Each[OwnerRecord]) func(*OwnerRecord, int64) (keyring.OwnerRecord, error) {
	times := make(map[string]int, len(sent))
	for i := range sent {
		times[sent[i].Value.UserID]++
	}
	return func(r *OwnerRecord, now int64) (keyring.OwnerRecord, error) {
		if times[r.UserID] > 1 {
			return keyring.OwnerRecord{}, api.Invalid("userId", "stands more than once among these owners")
		}
		return r.owner(now)
	}
}

// shut holds the owners whose keys are not imported, by userId: they would open
// although their owner may be a disabled one. Under the empty userId stands an
// owner of whom not even that could be read: it may be anybody.
type shut map[string]*shutError

type shutError struct {
	status keyring.ImportStatus
	reason string
}

func (e *shutError) Error() string { return "userId: " + e.reason }

// shutOwners looks at what became of the owners of an import.
func shutOwners(sent []api.Each[OwnerRecord], results []ImportResult) shut {
	s := shut{}
	for i, r := range results {
		o := &sent[i].Value
		switch status := keyring.ImportStatus(r.Status); {
		case status == keyring.Refused && o.UserID == "":
			s[""] = &shutError{status, "may be that of an owner in this import that is invalid"}
		case status == keyring.Refused:
			s[o.UserID] = &shutError{status, "is that of an owner in this import that is invalid"}
		case status == keyring.Conflict && r.Field == "enabled" && !api.Or(o.Enabled, true):
			s[o.UserID] = &shutError{status, "is that of an owner who is disabled in this import and enabled here"}
		}
	}
	return s
}

// entry is KeyRecord.entry for the keys of other owners.
func (s shut) entry(r *KeyRecord, now int64) (store.Entry, error) {
	for _, id := range []string{r.UserID, ""} {
		if err := s[id]; err != nil {
			return store.Entry{}, err
		}
	}
	return r.entry(now)
}
