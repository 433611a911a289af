package sqlite

// Windows has access control lists in place of modes; files inherit those of the folder.
func (o *Opener) tighten() {}
