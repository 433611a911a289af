package keyring

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caddy-apikey/caddy-apikey/key"
	"github.com/caddy-apikey/caddy-apikey/ratelimit"
	"github.com/caddy-apikey/caddy-apikey/store"
)

var sprintf = fmt.Sprintf

// Service is an engine seen with the rules of one configuration.
type Service struct {
	engine *Engine
	set    *Settings
	ledger Ledger
	// unknownConfig are the rules of keys whose configuration is gone.
	unknownConfig Rules
	days          calendar // in the zone of the settings
	plans         *plans
	prefixes      []string // of new keys, of all configurations
}

// NewService returns the service of an engine under s.
func NewService(r *Engine, s *Settings) *Service {
	unknown := s.Rules
	unknown.Session = false
	prefixes := []string{s.Rules.Prefix}
	for i := range s.Configs {
		if p := s.Configs[i].Prefix; !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
		}
	}
	return &Service{engine: r, set: s, ledger: r.ledger(s.Lease), unknownConfig: unknown, days: calendar{zone: s.Zone}, plans: newPlans(s), prefixes: prefixes}
}

// Info is all that is known of one key at one moment.
type Info struct {
	Key          *key.Key
	Owner        key.Owner
	Credits      key.Credits // with the refill that is due; what is leased and not spent remains
	RequestCount int64       // in the current window
	LastRequest  int64       // 0: never
	Tier         *string     // the owner's; nil: none
	State        store.State
	// Start is what is shown of the raw key, or nil.
	Start *string
	// Previous are the previous raw keys that work, the oldest first. Start is what is
	// shown of each, or empty.
	Previous []key.PreviousKey
}

// Issued is an Info with what is shown only once.
type Issued struct {
	Info
	Raw    string
	Secret string // empty: none was asked for
}

// Draft is a key that somebody asks for. Nil is "does not say". An ExpiresIn that
// is set to nil is the same for an operator, and the longest that there is for
// everybody else.
type Draft struct {
	UserID      string
	ConfigID    *string
	Name        *string
	DefaultName string // where Name is nil, unless the rules forbid it
	Prefix      *string
	ExpiresIn   Field[int64] // seconds
	Attributes
	Remaining           *int64
	RefillAmount        *int64
	RefillInterval      *int64 // milliseconds
	RateLimitEnabled    *bool
	RateLimitMax        *int64
	RateLimitTimeWindow *int64 // milliseconds
	RateLimitAlgorithm  *string
	Permissions         key.Permissions
	DefaultPermissions  key.Permissions // where Permissions is nil, as far as the actor's scope and the tier allow; nil: those of the tier, else of the rules
	AllowedIPs          []netip.Prefix
	Enabled             *bool
	WithSecret          bool

	scope *Scope // of whoever asks
}

// Create makes a key.
func (s *Editor) Create(ctx context.Context, draft Draft) (Issued, error) {
	if err := s.mayChange(); err != nil {
		return Issued{}, err
	}
	draft.scope = s.actor.Scope
	rules, err := s.rulesOf(draft.ConfigID)
	if err != nil {
		return Issued{}, err
	}
	if err := s.checkOwner(draft.UserID, rules.ConfigID); err != nil {
		return Issued{}, err
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return Issued{}, err
	}
	now := s.engine.clock()
	k, err := rules.draw(draft, now.wall)
	if err != nil {
		return Issued{}, err
	}
	tier, err := s.tierPermissions(ctx, st, draft.UserID)
	if err != nil {
		return Issued{}, err
	}
	if draft.Permissions == nil {
		switch {
		case draft.DefaultPermissions != nil:
			k.Permissions = draft.DefaultPermissions
		case tier != nil:
			k.Permissions = tier
		}
	}
	if err := draft.scope.under(tier).draw(k, draft); err != nil {
		return Issued{}, err
	}
	issued := Issued{}
	prefix := rules.Prefix
	if k.Prefix != nil {
		prefix = *k.Prefix
	}
	if issued.Raw, err = rules.generateFor(prefix); err != nil {
		return Issued{}, err
	}
	k.open(issued.Raw)
	if draft.WithSecret {
		if issued.Secret, err = k.lock(rules); err != nil {
			return Issued{}, err
		}
	}
	credits := key.NewCredits(draft.Remaining, orZero(draft.RefillAmount), orZero(draft.RefillInterval), now.wall)
	record := s.record(s.noteCreated)
	change, err := st.Create(context.WithoutCancel(ctx), &k.Key, credits, s.keyLimit(rules, now.wall), record.note)
	if err != nil {
		return Issued{}, err
	}
	s.changed(record, change)
	issued.Info = s.info(*change.Entry)
	return issued, nil
}

// sketch is a key that is being made.
type sketch struct{ key.Key }

// draw checks a draft and makes the record of it, still without a raw key.
func (r *Rules) draw(d Draft, now int64) (*sketch, error) {
	k := &sketch{key.Key{
		ID: key.NewID(now), ConfigID: r.ConfigID, UserID: d.UserID, Name: d.Name,
		Enabled: d.Enabled == nil || *d.Enabled, AllowedIPs: d.AllowedIPs,
		Permissions: d.Permissions, CreatedAt: now, UpdatedAt: now,
	}}
	if !k.Enabled {
		k.DisabledBy = d.scope.disables()
	}
	if k.Permissions == nil {
		k.Permissions = r.Permissions
	}
	// In this order, because that of the first problem is the one that is reported.
	if err := d.Put(&k.Key, r); err != nil {
		return nil, err
	}
	if err := checkCount("remaining", d.Remaining, 0); err != nil {
		return nil, err
	}
	if err := checkRefill(d.RefillAmount, d.RefillInterval); err != nil {
		return nil, err
	}
	var err error
	if k.ExpiresAt, err = r.firstExpiry(&d, now); err != nil {
		return nil, err
	}
	if err := r.drawPrefix(k, d.Prefix); err != nil {
		return nil, err
	}
	if err := r.checkName(d.Name); err != nil {
		return nil, err
	}
	if d.Name == nil && d.DefaultName != "" && r.checkName(&d.DefaultName) == nil {
		k.Name = &d.DefaultName
	}
	return k, r.drawRateLimit(k, d)
}

func (r *Rules) drawPrefix(k *sketch, prefix *string) error {
	if prefix == nil {
		if r.Prefix != "" {
			k.Prefix = &r.Prefix
		}
		return nil
	}
	if err := r.checkPrefix(*prefix); err != nil {
		return err
	}
	k.Prefix = prefix
	return nil
}

func (r *Rules) drawRateLimit(k *sketch, d Draft) error {
	if err := checkRateLimit(d.RateLimitMax, d.RateLimitTimeWindow); err != nil {
		return err
	}
	k.RateLimitEnabled = r.RateLimiting
	if d.RateLimitEnabled != nil {
		k.RateLimitEnabled = *d.RateLimitEnabled
	}
	if d.RateLimitMax != nil {
		k.RateLimitMax, k.RateLimitTimeWindow = *d.RateLimitMax, *d.RateLimitTimeWindow
	} else if r.RateLimit != nil {
		k.RateLimitMax, k.RateLimitTimeWindow = r.RateLimit.Max, r.RateLimit.Window
		k.RateLimitAlgorithm = r.RateLimit.Algorithm
	}
	if d.RateLimitAlgorithm == nil {
		return nil
	}
	var err error
	k.RateLimitAlgorithm, err = parseAlgorithm(*d.RateLimitAlgorithm)
	return err
}

// open gives the key its raw key.
func (k *sketch) open(raw string) {
	start := key.Display(raw)
	k.Hash, k.Start, k.Checksummed = key.HashOf(raw), &start, key.ChecksumFits(raw)
}

// lock gives the key a secret.
func (k *sketch) lock(r *Rules) (string, error) {
	secret, err := key.NewSecret(r.SecretPrefix)
	if err != nil {
		return "", fmt.Errorf("making a secret: %w", err)
	}
	hash := key.HashOf(secret)
	k.SecretHash = &hash
	return secret, nil
}

func orZero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// Get returns a key.
func (s *Service) Get(ctx context.Context, id string) (Info, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return Info{}, err
	}
	e, err := st.Get(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return s.info(e), nil
}

// Listing is one page of keys, as store.Page.
type Listing struct {
	Keys  []Info
	Total int64
	Next  string
}

// List returns a page of keys. Of the filter's tier only the name is looked at.
func (s *Service) List(ctx context.Context, q store.List) (Listing, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return Listing{}, err
	}
	q.Filter.Now = s.Now()
	if q.Filter.UnusedSince != 0 {
		// A key that was used a moment ago must not look as if it had not been for long.
		if err := s.engine.flush(ctx, st); err != nil {
			return Listing{}, err
		}
	}
	if t := q.Filter.Tier; t != nil {
		if q.Filter.Tier, err = s.tierFilter(t.Name); err != nil {
			return Listing{}, err
		}
	}
	page, err := st.List(ctx, q)
	if err != nil {
		return Listing{}, err
	}
	l := Listing{Keys: make([]Info, len(page.Entries)), Total: page.Total, Next: page.Next}
	for i, e := range page.Entries {
		l.Keys[i] = s.info(e)
	}
	return l, nil
}

// Describe returns the key of a decision as it is now.
func (s *Service) Describe(ctx context.Context, d *Decision) (Info, error) {
	return s.Get(ctx, d.Key().ID)
}

// Lookup returns the key that raw opens, also one that every gate refuses, and takes
// and counts nothing. The error is store.ErrNotFound where raw opens none.
func (s *Service) Lookup(ctx context.Context, raw string) (Info, error) {
	if key.CheckShape(raw, false) != nil {
		return Info{}, store.ErrNotFound
	}
	st, err := s.engine.open(ctx)
	if err != nil {
		return Info{}, err
	}
	var d Decision
	if err := s.decide(ctx, st, credential{hash: key.HashOf(raw)}, nil, &Request{DryRun: true}, &d); err != nil {
		return Info{}, err
	}
	if d.Key() == nil {
		return Info{}, store.ErrNotFound
	}
	return s.Describe(ctx, &d)
}

// info joins an entry of the store with what is counted in memory.
func (s *Service) info(e store.Entry) Info {
	now := s.engine.clock()
	i := Info{
		Key: e.Key, Owner: e.Owner, Credits: e.Credits.At(now.wall),
		LastRequest: e.LastRequest, Start: s.shown(e.Key), Tier: s.TierOf(&e.Owner),
	}
	over, previous := now.wall, e.Key.Previous
	var rate ratelimit.State
	if in, rec := s.engine.cache.current(e.Key.ID); rec != nil {
		i.LastRequest = max(i.LastRequest, in.last(rec))
		i.RequestCount = in.windows.count(e.Key, s.engine.clock)
		i.Credits = s.balance(in, e.Credits, now.wall)
		over, previous = max(over, in.graceOver.Load()), rec.used(previous)
	} else if state := e.Window(store.UnitRate); len(state) > 0 && rate.UnmarshalBinary(state) == nil {
		i.RequestCount = countOf(&rate, e.Key, now.monotonic)
	}
	for _, p := range previous {
		if over < p.Until {
			p.Start = p.Start[:min(s.rulesFor(e.Key).Start, len(p.Start))]
			i.Previous = append(i.Previous, p)
		}
	}
	i.State = stateOf(&i, now.wall)
	return i
}

// balance returns the credits of a key in memory, of which stored is what the store says.
func (s *Service) balance(in *entry, stored key.Credits, now int64) key.Credits {
	if a := in.account.Load(); a != nil {
		return s.ledger.Balance(a, stored, now)
	}
	return stored.Forfeit().At(now)
}

// stateOf returns the state of a key, checked in the order of a gate.
func stateOf(i *Info, now int64) store.State {
	switch {
	case !i.Key.Enabled || !i.Owner.Enabled:
		return store.StateDisabled
	case i.Key.Expired(now):
		return store.StateExpired
	case i.Credits.Limited && i.Credits.Remaining < 1:
		return store.StateExhausted
	}
	return store.StateActive
}

func countOf(s *ratelimit.State, k *key.Key, now int64) int64 {
	p, ok := k.RatePolicy()
	if !ok {
		return 0
	}
	return s.Count(p, now)
}

// shown returns the leading characters of a raw key that may be shown.
func (s *Service) shown(k *key.Key) *string {
	n := s.rulesFor(k).Start
	if k.Start == nil || n == 0 {
		return nil
	}
	start := (*k.Start)[:min(n, len(*k.Start))]
	return &start
}

// Now is the time by which keys are made and judged.
func (s *Service) Now() int64 { return s.engine.clock().wall }

// Degraded returns the parts that do not work because the store is away.
func (s *Service) Degraded() []Part { return s.engine.Degraded() }

// Health asks the store now.
func (s *Service) Health(ctx context.Context) (store.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, s.engine.lookupTimeout)
	defer cancel()
	st, err := s.engine.open(ctx)
	if err != nil {
		return store.Status{}, err
	}
	return st.Health(ctx)
}

// Backup returns a copy of the store, with every change that was answered before the call.
// The caller closes it. Where the store makes none, the error is ErrNoBackup.
func (s *Service) Backup(ctx context.Context) (*store.Backup, error) {
	st, err := s.engine.open(ctx)
	if err != nil {
		return nil, err
	}
	backuper, ok := st.Store.(store.Backuper)
	if !ok {
		return nil, ErrNoBackup
	}
	return backuper.Backup(ctx)
}
