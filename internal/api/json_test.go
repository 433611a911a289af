package api

import (
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

func TestObject(t *testing.T) {
	for body, want := range map[string]string{
		`{}`: "", ` { "a" : 1 , "b":[ ] } `: "a=1 b=[ ]", `{"a":null}`: "a=null", `{"a":1,"a":2}`: "a=1 a=2", `{"\u0061":{}}`: "a={}",
		``: errNoObject.Error(), `[]`: errNoObject.Error(), `null`: errNoObject.Error(), `{`: errInvalid.Error(), `{}{}`: errInvalid.Error(), `{"a":1}x`: errInvalid.Error(),
		`{"a" 1}`: errInvalid.Error(), `{a:1}`: errInvalid.Error(), `{"a":1,}`: errInvalid.Error(), `{"a":1 "b":2}`: errInvalid.Error(), `{,"a":1}`: errInvalid.Error(),
		`{"a":01}`: errInvalid.Error(), `{"a":0x1}`: errInvalid.Error(), `{"a":'b'}`: errInvalid.Error(), "{\"a\":\"\xff\"}": errInvalid.Error(), `{"a":`: errInvalid.Error(),
	} {
		var got []string
		err := eachField([]byte(body), func(name string, value json.RawMessage) error {
			if value != nil {
				got = append(got, name+"="+string(value))
			}
			return nil
		})
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%s: %s, want %s", body, text, want)
		}
	}
}

func TestNamesOnce(t *testing.T) {
	for value, want := range map[string]bool{
		`1`: true, `{}`: true, `{"a":{"a":1},"b":{"a":1}}`: true, `[{"a":1},{"a":1}]`: true, `{"a":"b","b":"a"}`: true,
		`{"a":1,"a":1}`: false, `{"a":1,"\u0061":2}`: false, `[[{"x":{"a":1,"b":2,"a":3}}]]`: false, `{"a":[1,{}],"a":0}`: false,
	} {
		if got := namesOnce(json.RawMessage(value)); got != want {
			t.Errorf("%s: %v", value, got)
		}
	}
}

func TestString(t *testing.T) {
	for value, want := range map[string]string{`"a"`: "a", `""`: "", `"\ud83d\ude00"`: "😀", `"\ufffd"`: "\uFFFD", `"\uFFFD�"`: "\uFFFD\uFFFD"} {
		if got, ok := readString(json.RawMessage(value)); !ok || got != want {
			t.Errorf("%s: %q %v", value, got, ok)
		}
	}
	for _, value := range []string{``, `a`, `1`, `null`, `["a"]`, `"\ud800"`, `"\ud800\ufffd\udc00"`, `"a`} {
		if got, ok := readString(json.RawMessage(value)); ok {
			t.Errorf("%s is taken for %q", value, got)
		}
	}
}

func TestPlainWord(t *testing.T) {
	for _, s := range []string{"a", "expiresIn", "a_b-c.9", strings.Repeat("a", 31)} {
		if !isPlainWord(s) {
			t.Errorf("%s", s)
		}
	}
	for _, s := range []string{"", "a b", "é", "a\n", strings.Repeat("a", 32), "<b>"} {
		if isPlainWord(s) {
			t.Errorf("%q", s)
		}
	}
}

func TestReadBody(t *testing.T) {
	tooLarge := &Error{Status: 413, Code: CodeTooLarge, Message: "the body must be at most 65536 bytes"}
	for _, row := range []struct {
		body, contentType string
		length            int64
		want              error
	}{
		{"{}", "", 2, nil},
		{" \n", "text/plain", 2, nil},
		{"{}", "application/json", -1, nil},
		{"{}", "Application/JSON; Charset=UTF-8", 2, nil},
		{"{}", "text/json", 2, ErrMediaType},
		{"{}", "application/json; charset=utf-16", 2, ErrMediaType},
		{"{}", "application/json; charset", 2, ErrMediaType},
		{strings.Repeat(" ", MaxBody) + "{", "", -1, tooLarge},
		{strings.Repeat(" ", MaxBody) + "{", "", MaxBody + 1, tooLarge},
		{"{", "", MaxBody + 1, tooLarge},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(row.body))
		r.ContentLength = row.length
		if row.contentType != "" {
			r.Header.Set("Content-Type", row.contentType)
		}
		u := new(API).uploadOf(httptest.NewRecorder(), r)
		body, err := u.all(MaxBody)
		if err == nil {
			_, err = JSONBody(r, body)
		}
		if !reflect.DeepEqual(err, row.want) {
			t.Errorf("%.10q %s: %v, want %v", row.body, row.contentType, err, row.want)
		}
	}
}
