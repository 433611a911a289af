package redact

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// names are the names of places to mask. They are immutable.
type names struct {
	headers, query, cookies []string
	segments                []int // of paths, from 0
}

// published holds the places that Publish has been told of. Logs are opened before
// handlers are provisioned, so every encoder looks here when it writes.
var published registry

type registry struct {
	mu     sync.Mutex
	counts map[publishedPlace]int
	names  atomic.Pointer[names] // of counts; replaced when they change
}

// publishedPlace is one place, by its kind and name.
type publishedPlace struct {
	kind placeKind
	name string
}

type placeKind int

const (
	headerPlace placeKind = iota
	queryPlace
	cookiePlace
	segmentPlace
)

// Publish makes every encoder apikey_redact of this process mask the values in some
// places, until withdraw is called. Encoders cannot mask names that no header,
// parameter or cookie can have, and what From reads apart from a segment of the path;
// these places are left out.
func Publish(p Places) (withdraw func()) {
	places := p.published()
	published.add(places, 1)
	return func() { published.add(places, -1) }
}

// published returns the places that an encoder can mask.
func (p *Places) published() (list []publishedPlace) {
	for _, name := range p.Headers {
		if checkHeader(name) == nil {
			list = append(list, publishedPlace{headerPlace, foldName(name)})
		}
	}
	for _, name := range p.Query {
		if checkQuery(name) == nil {
			list = append(list, publishedPlace{queryPlace, foldName(name)})
		}
	}
	for _, name := range p.Cookies {
		if httpguts.ValidHeaderFieldName(name) { // both are tokens
			list = append(list, publishedPlace{cookiePlace, foldName(name)})
		}
	}
	for _, placeholder := range p.From {
		if n, ok := segmentOf(placeholder); ok {
			list = append(list, publishedPlace{segmentPlace, strconv.Itoa(n)})
		}
	}
	return list
}

// segmentOf returns the index of the path segment that a placeholder reads.
func segmentOf(placeholder string) (n int, ok bool) {
	name, ok := strings.CutPrefix(placeholder, "{http.request.")
	name, closed := strings.CutSuffix(name, "}")
	kind, index, found := strings.Cut(name, ".path.")
	n, err := strconv.Atoi(index)
	return n, ok && closed && found && (kind == "uri" || kind == "orig_uri") && err == nil && n >= 0
}

// add counts places, once more or once less each.
func (r *registry) add(places []publishedPlace, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[publishedPlace]int{}
	}
	changed := false
	for _, p := range places {
		before := r.counts[p]
		if r.counts[p] = before + by; before+by == 0 {
			delete(r.counts, p)
		}
		changed = changed || before == 0 || before+by == 0
	}
	if changed {
		r.names.Store(r.collect())
	}
}

func (r *registry) collect() *names {
	n := new(names)
	for _, p := range slices.SortedFunc(maps.Keys(r.counts), func(a, b publishedPlace) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
	}) {
		switch p.kind {
		case headerPlace:
			n.headers = append(n.headers, p.name)
		case queryPlace:
			n.query = append(n.query, p.name)
		case cookiePlace:
			n.cookies = append(n.cookies, p.name)
		case segmentPlace:
			segment, _ := strconv.Atoi(p.name) // it was a number
			n.segments = append(n.segments, segment)
		}
	}
	return n
}

// masks are the masks of an encoder and its clones: its own names and those that are
// published.
type masks struct {
	headers, query []string
	current        atomic.Pointer[masker]
}

// masker returns the present masker. It is compiled again only after the published
// names have changed.
func (k *masks) masker() *masker {
	n := published.names.Load()
	if m := k.current.Load(); m != nil && m.published == n {
		return m
	}
	all := names{headers: slices.Concat(defaultHeaders, k.headers), query: k.query}
	if n != nil {
		all.headers = append(all.headers, n.headers...)
		all.query = slices.Concat(all.query, n.query)
		all.cookies, all.segments = n.cookies, n.segments
	}
	m := newMasker(&all)
	m.published = n
	k.current.Store(m)
	return m
}
