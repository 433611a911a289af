package admin

import "github.com/caddy-apikey/caddy-apikey/internal/api"

// ConfigList is what is configured of raw keys.
type ConfigList struct {
	Configs   []Config `json:"configs" doc:"\"default\" first"`
	PlainKeys bool     `json:"plainKeys" doc:"keys without a checksum are stored, which cannot be told from other text"`
}

// Config says how the raw keys of a configuration look.
type Config struct {
	ID       string `json:"id"`
	Prefix   string `json:"prefix" doc:"of new keys that do not say; empty: none"`
	Length   *int64 `json:"length" min:"1" doc:"characters (0-9, A-Z, a-z) after the prefix; null where another generator makes the keys"`
	Checksum bool   `json:"checksum" doc:"raw keys end with a checksum"`
}

func listConfigs(c *api.Call) (ConfigList, error) {
	list := ConfigList{Configs: []Config{}}
	for _, f := range c.Keys.Formats() {
		list.Configs = append(list.Configs, Config{ID: f.ConfigID, Prefix: f.Prefix, Length: api.MaybeCount(int64(f.Length)), Checksum: f.Checksum})
	}
	var err error
	list.PlainKeys, err = c.Keys.HasPlainKeys(c.Context())
	return list, err
}
