package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) health() *cobra.Command {
	cmd := h.command("health", "Checks the key store", noArgs, func(c *call) error {
		a, err := c.client.Health(c.ctx)
		return answer(c, a, err, healthDetails)
	})
	cmd.Long = "Checks whether the key store works. Exit status: 0 if it works, 1 if not."
	return cmd
}

func healthDetails(h admin.Health) string {
	return properties([]property{
		{"Status", printable(h.Status)},
		{"Version", printable(h.Version)},
		{"Store", fmt.Sprintf("%s %s, schema %d", printable(h.Store.Kind), printable(h.Store.Version), h.Store.Schema)},
		{"Keys", h.Keys},
		{"Backlog", h.Backlog},
	})
}
