package admin

import (
	"errors"
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/keyring"
)

// BackupType is the Content-Type of a backup.
const BackupType = "application/vnd.sqlite3"

func backup(c *api.Call) (api.File, error) {
	b, err := c.Keys.Backup(c.Context())
	switch {
	case errors.Is(err, keyring.ErrNoBackup):
		return api.File{}, &api.Error{Status: http.StatusNotImplemented, Code: api.CodeNotImplemented, Message: err.Error()}
	case err != nil:
		return api.File{}, err
	}
	return api.File{ReadCloser: b, Size: b.Size, Type: BackupType}, nil
}
