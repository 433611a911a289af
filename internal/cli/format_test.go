package cli

import (
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/caddy-apikey/caddy-apikey/key"
)

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", "build server", "build server"},
		{"Chinese", "部署 密钥", "部署 密钥"},
		{"escape sequence", "\x1b[31mred", `\x1b[31mred`},
		{"carriage return", "a\rb\nc", `a\rb\nc`},
		{"C1 control", "\u009b2J", `\u009b2J`},
		{"direction", "a\u202eb", `a\u202eb`},
		{"invalid UTF-8", "a\xffb", "a\ufffdb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := printable(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestS9_FormulaCells writes cells that a spreadsheet would run.
func TestS9_FormulaCells(t *testing.T) {
	for in, want := range map[string]string{
		"=cmd()": "'=cmd()", "+1+1": "'+1+1", "-1-1": "'-1-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "'\t=1", "\r=1": "'\r=1",
		"＝cmd()": "'＝cmd()", "－1": "'－1", "=": "'=", "-": "'-", "-1e3": "'-1e3", "\xff=": "\xff=",
		"": "", "a=b": "a=b", "5": "5", "-5": "-5", "+49170": "+49170", "2026-01-01T00:00:00Z": "2026-01-01T00:00:00Z", "'=x": "'=x",
	} {
		if got := inertCell(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got, want := writeCSV([][]string{{"name"}, {"=cmd(\"x\"),1"}}), "name\n\"'=cmd(\"\"x\"\"),1\"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDuration(t *testing.T) {
	const hour, day = 60 * 60 * 1000, 24 * 60 * 60 * 1000
	for ms, want := range map[int64]string{
		1: "1ms", 500: "500ms", 1500: "1.5s", 10_000: "10s", 60_000: "1m", 90_000: "1m30s", hour: "1h",
		hour + 60_000: "1h1m", hour + 1000: "1h0m1s", day: "1d", 90 * day: "90d", day + hour: "1d1h",
		key.MaxCount: "104249991d8h59m0.991s",
	} {
		if got := formatDuration(ms); got != want {
			t.Errorf("%d ms: got %s, want %s", ms, got, want)
		}
	}
}

func TestTableAlignsWideCharacters(t *testing.T) {
	tw := newTable("NAME", "N")
	tw.AppendRows([]table.Row{{"部署", "1"}, {"e\u0301tat", "2"}})
	got := tw.Render()
	want := "NAME  N\n部署  1\ne\u0301tat  2"
	if got != want {
		t.Errorf("got\n%s want\n%s", got, want)
	}
}

func TestContainsRawKey(t *testing.T) {
	raw, err := key.Random{}.Generate("ak_", key.DefaultLength, true)
	if err != nil {
		t.Fatal(err)
	}
	last := raw[:len(raw)-1] + map[bool]string{true: "1", false: "0"}[raw[len(raw)-1] == '0']
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"raw key", raw, true},
		{"within JSON", `{"token":"` + raw + `"}`, true},
		{"in a sentence", "key: " + raw + ".", true},
		{"wrong checksum", last, false},
		{"id", "01a20025052bcd7bf5f14f86", false},
		{"Chinese", strings.Repeat("密", 40), false},
		{"empty", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := containsRawKey(tt.in); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
