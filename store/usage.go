package store

// Uses counts requests by what became of them.
type Uses struct {
	Allowed int64
	Limited int64 // refused because a limit was reached
	Denied  int64 // refused for any other reason
}

// Add adds the counts of b.
func (a *Uses) Add(b Uses) {
	a.Allowed += b.Allowed
	a.Limited += b.Limited
	a.Denied += b.Denied
}

// Used is what a key did for an owner on a day, as an increment. It may be
// negative: a request that was counted as one thing turned out to be another.
type Used struct {
	KeyID, UserID string
	Day           int32 // YYYYMMDD, in the time zone of the configuration
	Uses
}

// UsageBatch is written whole and once. Writer names the process that counted,
// and Number grows by one with each of its batches: a batch whose answer was lost
// is sent again under the same number, and changes nothing if it had been written.
type UsageBatch struct {
	Writer string
	Number int64 // from 1 on
	Used   []Used
}

// DayUses is one day of usage.
type DayUses struct {
	Day int32 // YYYYMMDD
	Uses
}
