package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/internal/api/admin"
)

func (h *Host) webhooks() *cobra.Command {
	cmd := &cobra.Command{Use: "webhooks COMMAND", Short: "Lists and retries events that webhooks have not taken"}
	h.group(cmd)
	cmd.AddCommand(h.webhooksList(), h.webhooksRetry())
	return cmd
}

func (h *Host) webhooksList() *cobra.Command {
	var in admin.ListDeliveries
	var pages *paging
	cmd := h.command("list [flags]", "Lists events that webhooks have not taken", noArgs, func(c *call) error {
		a, err := fetch(pages, "deliveries", func() (admin.Answer[admin.DeliveryList], error) { return c.client.Deliveries(c.ctx, in) })
		if err == nil && a.Value.NextCursor != nil {
			c.note("Showing the newest %d deliveries. To list all of them, use --all.", len(a.Value.Deliveries))
		}
		return answerList(c, a, err, "deliveries", func(l admin.DeliveryList) []admin.Delivery { return l.Deliveries }, deliveryListing)
	})
	cmd.Long = `Lists events that webhooks have not taken, the newest first. A pending one is tried again by
itself for 24 hours. After that it is dead: "caddy apikey webhooks retry" sends it again.`
	cmd.Example = `  caddy apikey webhooks list --state dead`
	setFormats(cmd, listFormats)
	f := cmd.Flags()
	define(f, "state", pointer(&in.State, oneOf(deliveryStates...)), "deliveries in this `state`: pending or dead")
	completeFlag(cmd, "state", completeWords(deliveryStates...))
	pages = definePaging(cmd, &in.Limit, &in.Cursor)
	h.defineTable(cmd, deliveryListing.names())
	return cmd
}

func (h *Host) webhooksRetry() *cobra.Command {
	cmd := h.command("retry ID [flags]", "Sends an event again", oneArg("the id of the delivery, as the list shows it"), func(c *call) error {
		a, err := c.client.RetryDelivery(c.ctx, c.args[0])
		if err == nil {
			c.note("The delivery is tried within 10 seconds, and then again for 24 hours.")
		}
		return answerOne(c, a, err, deliveryListing, c.deliveryDetails)
	})
	cmd.Example = `  caddy apikey webhooks retry msg_3H7QK5V2LJX6T4N2ZQDYBWAMRC`
	setFormats(cmd, listFormats)
	return cmd
}

// deliveryListing describes a list of deliveries to webhooks.
var deliveryListing = &listing[admin.Delivery]{
	name: func(d admin.Delivery) string { return d.ID },
	columns: []column[admin.Delivery]{
		{name: "id", value: func(d admin.Delivery) string { return d.ID }, whole: true},
		{name: "event", value: func(d admin.Delivery) string { return d.Event }, whole: true},
		{name: "url", value: func(d admin.Delivery) string { return d.URL }},
		{name: "state", value: func(d admin.Delivery) string { return d.State }, whole: true},
		{name: "attempts", value: func(d admin.Delivery) string { return strconv.FormatInt(d.Attempts, 10) }},
		{name: "last-status", value: lastStatus},
		timeColumn("next-attempt", false, func(d admin.Delivery) *api.Time { return d.NextAttempt }),
		timeColumn("created", true, func(d admin.Delivery) *api.Time { return &d.CreatedAt }),
	},
}

var deliveryStates = []string{"pending", "dead"}

func (c *call) deliveryDetails(d admin.Delivery) string {
	return properties([]property{
		{"ID", printable(d.ID)},
		{"Event", printable(d.Event)},
		{"URL", printable(d.URL)},
		{"State", printable(d.State)},
		{"Next attempt", c.timeText(d.NextAttempt)},
	})
}

func lastStatus(d admin.Delivery) string {
	if d.LastStatus == nil {
		return ""
	}
	return strconv.FormatInt(*d.LastStatus, 10)
}
