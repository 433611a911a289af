package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) health() *cobra.Command {
	cmd := h.command("health [flags]", "Checks the key store", noArgs, func(c *call) error {
		a, err := c.client.Health(c.ctx)
		return answer(c, a, err, c.healthDetails)
	})
	cmd.Long = "Checks whether the key store works, and says which database and which Caddy it is.\nExit status: 0 if it works, 1 if not."
	return cmd
}

func (c *call) healthDetails(h admin.Health) string {
	list := []property{
		{"Status", printable(h.Status)},
		{"Version", printable(h.Version)},
		{"Store", fmt.Sprintf("%s %s, schema %d", printable(h.Store.Kind), printable(h.Store.Version), h.Store.Schema)},
		{"Database", printable(h.Store.Database)},
		{"Process", fmt.Sprintf("%d at %s, started %s", h.PID, printable(c.client.Name), c.timeText(&h.StartedAt))},
		{"Keys", h.Keys},
		{"Backlog", h.Backlog},
		{"Audit head", auditHead(h.Audit)},
	}
	if len(h.Degraded) > 0 {
		list = append(list, property{"Degraded", printable(strings.Join(h.Degraded, ", "))})
	}
	return properties(list)
}

func auditHead(p *admin.AuditPoint) string {
	if p == nil {
		return noValue
	}
	return fmt.Sprintf("%d:%s", p.ID, p.Chain)
}
