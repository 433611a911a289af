package cli

import (
	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) health() *cobra.Command {
	cmd := h.command("health", "Asks the store of the keys whether it works", noArgs, func(c *call) error {
		a, err := c.client.Health(c.ctx)
		return answer(c, a, err, healthDetails)
	})
	cmd.Long = "Asks the store of the keys whether it works: exit status 0 if it does, 1 if not."
	return cmd
}

func healthDetails(h admin.Health) string {
	return properties([]property{
		{"Status", printable(h.Status)},
		{"Version", printable(h.Version)},
		{"Store", sprintf("%s %s, schema %d", printable(h.Store.Kind), printable(h.Store.Version), h.Store.Schema)},
		{"Keys", h.Keys},
		{"Backlog", h.Backlog},
	})
}
