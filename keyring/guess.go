package keyring

// guessLimit is the name of Settings.GuessLimit among the limits.
const guessLimit = "guess"

// limitGuess counts an invalid key against the address that it came from. Beyond the limit
// the decision becomes a refusal for that, whatever is wrong with the key, unless the key is
// known: it is not a guess then, and its holder has to know what is wrong. A valid key
// never gets here, so that nobody can lock it out.
func (s *Service) limitGuess(d *Decision, q *Request) {
	limit := s.set.GuessLimit
	// Without the filter, each unknown key costs a look-up that the limit cannot spare.
	if d.Outcome != Invalid || !q.CountGuess || limit.Max == 0 || !q.ClientIP.IsValid() || s.engine.cache.members.current.Load() == nil {
		return
	}
	v := s.engine.guesses.take(networkOf(q.ClientIP), limit, s.engine.clock)
	if v.OK || d.rec != nil {
		return
	}
	d.refuse(RateLimited, v.Wait, true)
	d.Limit = guessLimit
	d.Limits = []Limit{{
		Name: guessLimit, Scope: ScopeAddress, Quota: limit.Max, Window: limit.Window,
		Remaining: v.Remaining, Reset: v.Reset, Full: true,
	}}
}
