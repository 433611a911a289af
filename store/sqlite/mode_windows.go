package sqlite

// giveTo does nothing: files inherit the permissions of the folder.
func giveTo(string, string) error { return nil }

// Windows has access control lists in place of modes; files inherit those of the folder.
func (o *Opener) tighten() {}
