package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames sends the message over HTTP/2 as it is written, on a connection of its own.
// The client of net/http would correct the path and announce the trailer. The error
// says how the server has refused a message that it takes for malformed.
func (m *message) frames(t testing.TB, host string) (*reply, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{http2.NextProtoTLS}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := m.writeFrames(conn, f, host); err != nil {
		return nil, err
	}
	return readFrames(f)
}

// stream is the number of the only stream of a connection.
const stream = 1

func (m *message) writeFrames(conn *tls.Conn, f *http2.Framer, host string) error {
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	if err := f.WriteSettings(); err != nil {
		return err
	}
	pseudo := []field{{":method", m.verb()}, {":scheme", "https"}, {":authority", host}, {":path", m.target}}
	if m.verb() == http.MethodConnect {
		pseudo = []field{{":method", m.verb()}, {":authority", m.target}}
	}
	var announced []field
	if !m.quiet {
		for _, t := range m.trailer {
			announced = append(announced, field{"trailer", t.name})
		}
	}
	ends := m.body == "" && m.trailer == nil
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fieldBlock(pseudo, m.fields, announced), EndStream: ends, EndHeaders: true}); err != nil || ends {
		return err
	}
	if err := f.WriteData(stream, m.trailer == nil, []byte(m.body)); err != nil || m.trailer == nil {
		return err
	}
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fieldBlock(m.trailer), EndStream: true, EndHeaders: true})
}

// fieldBlock encodes fields. Their names are in lower case in HTTP/2.
func fieldBlock(lists ...[]field) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, list := range lists {
		for _, f := range list {
			e.WriteField(hpack.HeaderField{Name: strings.ToLower(f.name), Value: f.value}) //nolint:errcheck // a Buffer has no errors
		}
	}
	return b.Bytes()
}

// readFrames reads the final answer.
func readFrames(f *http2.Framer) (*reply, error) {
	status, header := 0, http.Header{}
	var body bytes.Buffer
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return nil, err
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return nil, err
				}
			}
		case *http2.MetaHeadersFrame:
			if n, err := strconv.Atoi(frame.PseudoValue("status")); err == nil && n >= http.StatusOK { // else it is a trailer, or an interim answer
				status = n
				for _, h := range frame.RegularFields() {
					header.Add(h.Name, h.Value)
				}
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			body.Write(frame.Data())
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if status == 0 || frame.ErrCode != http2.ErrCodeNo {
				return nil, fmt.Errorf("the stream was reset: %v", frame.ErrCode)
			}
			ended = true
		case *http2.GoAwayFrame:
			return nil, fmt.Errorf("the connection was closed: %v", frame.ErrCode)
		}
		if ended {
			return newReply(status, header, body.Bytes()), nil
		}
	}
}
