package admin

import (
	"errors"
	"net/http"

	"github.com/caddy-apikey/caddy-apikey/internal/api"
	"github.com/caddy-apikey/caddy-apikey/store"
)

// CodeDeliveryNotFound is the code of a delivery that does not exist.
const CodeDeliveryNotFound = "DELIVERY_NOT_FOUND"

func listDeliveries(c *api.Call, in ListDeliveries) (DeliveryList, error) {
	page, err := c.Keys.Deliveries(c.Context(), store.DeliveryQuery{
		State: store.DeliveryState(api.Or(in.State, "")), Limit: int(api.Or(in.Limit, defaultLimit)), Cursor: api.Or(in.Cursor, ""),
	})
	if err != nil {
		return DeliveryList{}, err
	}
	list := DeliveryList{Deliveries: make([]Delivery, len(page.Deliveries)), NextCursor: api.MaybeText(page.Next)}
	for i := range page.Deliveries {
		list.Deliveries[i] = deliveryOf(&page.Deliveries[i])
	}
	return list, nil
}

func retryDelivery(c *api.Call) (Delivery, error) {
	id, err := c.ID()
	var d store.Delivery
	if err == nil {
		d, err = c.Keys.RetryDelivery(c.Context(), id)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = &api.Error{Status: http.StatusNotFound, Code: CodeDeliveryNotFound, Message: "delivery not found: the webhook has taken it, or there is none with this id"}
	}
	return deliveryOf(&d), err
}

func deliveryOf(d *store.Delivery) Delivery {
	w := Delivery{ID: d.ID, Event: d.Event, URL: d.URL, State: string(d.State), Attempts: d.Attempts, CreatedAt: api.TimeOf(d.CreatedAt)}
	if d.State == store.DeliveryPending {
		w.NextAttempt = api.MaybeTime(d.NextAttempt)
	}
	if status := int64(d.LastStatus); status != 0 {
		w.LastStatus = &status
	}
	return w
}
