package betterauth

import (
	"time"

	"github.com/caddy-apikey/caddy-apikey/keyring"
)

const sessionPath = "/get-session"

// sessionLife is how long a session is said to last where nothing ends it.
const sessionLife = 7 * 24 * time.Hour

// sessionAnswer is what get-session knows of the caller. What is not known here is
// null: names and e-mail addresses of people are kept elsewhere.
type sessionAnswer struct {
	User    sessionUser `json:"user"`
	Session session     `json:"session"`
}

type sessionUser struct {
	Name          *string `json:"name"`
	Email         *string `json:"email"`
	EmailVerified *bool   `json:"emailVerified"`
	Image         *string `json:"image"`
	CreatedAt     *date   `json:"createdAt"`
	UpdatedAt     *date   `json:"updatedAt"`
	ID            string  `json:"id"`
}

type session struct {
	ID *string `json:"id"`
	// Token is the ID again: it names the session and opens nothing.
	Token     *string `json:"token"`
	UserID    string  `json:"userId"`
	UserAgent *string `json:"userAgent"`
	IPAddress *string `json:"ipAddress"`
	CreatedAt date    `json:"createdAt"`
	UpdatedAt date    `json:"updatedAt"`
	ExpiresAt date    `json:"expiresAt"`
}

// getSession tells who calls, and null where nobody is known to.
func (c *call) getSession() (any, error) {
	if c.Caller == nil {
		return nil, nil
	}
	now := c.Now()
	a := &sessionAnswer{
		User: sessionUser{ID: c.Caller.UserID},
		Session: session{
			UserID: c.Caller.UserID, CreatedAt: date(now.UnixMilli()), UpdatedAt: date(now.UnixMilli()),
			ExpiresAt: date(now.Add(sessionLife).UnixMilli()),
		},
	}
	if agent := c.UserAgent(); agent != "" {
		a.Session.UserAgent = &agent
	}
	if ip := c.Caller.ClientIP; ip.IsValid() {
		text := ip.Unmap().String()
		a.Session.IPAddress = &text
	}
	if d := c.Caller.Decision; d != nil {
		return a, c.sessionOf(a, d)
	}
	return a, nil
}

// sessionOf fills in what is known of the holder of a key.
func (c *call) sessionOf(a *sessionAnswer, d *keyring.Decision) error {
	if !c.Caller.Session {
		return errReference
	}
	k := d.Key()
	a.Session.ID, a.Session.Token = &k.ID, &k.ID
	if k.ExpiresAt != 0 {
		a.Session.ExpiresAt = date(k.ExpiresAt)
	}
	return nil
}
