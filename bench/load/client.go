package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one keep-alive connection with one request at a time. It reads of an
// answer what it must, because it shares the machine with the server.
type conn struct {
	net.Conn
	request []byte
	key     []byte // the part of request that is the key
	pick    pick
	status  []byte // what an answer begins with
	buf     []byte
	took    latencies // of one run
}

const (
	requestStart = "GET /some/path?q=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: */*\r\nX-Api-Key: "
	requestEnd   = "\r\n\r\n"
	patience     = 30 * time.Second
)

func dial(addr string, status int, p pick) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	request := append([]byte(requestStart), make([]byte, rawLen)...)
	return &conn{
		Conn: c, pick: p, status: fmt.Appendf(nil, "HTTP/1.1 %d ", status),
		key: request[len(requestStart):], request: append(request, requestEnd...)[:len(requestStart)+rawLen+len(requestEnd)],
		buf: make([]byte, 0, 4096),
	}, nil
}

var (
	errStatus = errors.New("unexpected answer")
	// errUnavailable is counted, it does not end a run.
	errUnavailable = errors.New("the gate could not ask its store")
)

// do sends a request and reads the answer. It returns the length of the body.
func (c *conn) do() (int, error) {
	c.pick(c.key)
	if _, err := c.Write(c.request); err != nil {
		return 0, err
	}
	head, body, err := c.readHead()
	if err != nil {
		return 0, err
	}
	for len(c.buf) < head+body {
		if err := c.read(); err != nil {
			return 0, err
		}
	}
	answer := c.buf
	c.buf = c.buf[:0]
	switch {
	case bytes.HasPrefix(answer, c.status):
		return body, nil
	case bytes.HasPrefix(answer, []byte("HTTP/1.1 503 ")):
		return 0, errUnavailable
	default:
		return 0, fmt.Errorf("%w: %q", errStatus, answer)
	}
}

// readHead reads until the head of the answer is there. It returns its length
// and that of the body.
func (c *conn) readHead() (head, body int, err error) {
	for {
		if err := c.read(); err != nil {
			return 0, 0, err
		}
		if end := bytes.Index(c.buf, []byte("\r\n\r\n")); end >= 0 {
			body, err := contentLength(c.buf[:end+2])
			return end + 4, body, err
		}
	}
}

func contentLength(head []byte) (int, error) {
	const name = "\r\nContent-Length: "
	_, rest, ok := bytes.Cut(head, []byte(name))
	if !ok {
		return 0, fmt.Errorf("%w, no Content-Length: %q", errStatus, head)
	}
	value, _, _ := bytes.Cut(rest, []byte("\r"))
	return strconv.Atoi(string(value))
}

func (c *conn) read() error {
	if len(c.buf) == cap(c.buf) {
		return fmt.Errorf("%w: it is too long", errStatus)
	}
	n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	return err
}

// ownHeaders returns the headers of an answer that a refusal has of its own.
func (c *conn) ownHeaders() (map[string][]string, int, error) {
	c.pick(c.key)
	if _, err := c.Write(c.request); err != nil {
		return nil, 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c.Conn), nil)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.HasPrefix(c.status, fmt.Appendf(nil, "HTTP/1.1 %d ", resp.StatusCode)) {
		err = fmt.Errorf("%w: %s", errStatus, resp.Status)
	}
	for _, name := range []string{"Date", "Server", "Content-Length"} { // Caddy sets them on every answer
		delete(resp.Header, name)
	}
	return resp.Header, len(body), err
}

// client drives one site.
type client struct {
	conns       []*conn
	unavailable atomic.Int64 // answers with 503, of all runs; they do not count as answers
}

func newClient(addr string, status, connections int, p picker) (*client, error) {
	c := &client{}
	for range connections {
		one, err := dial(addr, status, p())
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.conns = append(c.conns, one)
	}
	return c, nil
}

func (c *client) close() error {
	var errs []error
	for _, one := range c.conns {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// latencies returns those of the last run.
func (c *client) latencies() *latencies {
	all := new(latencies)
	for _, one := range c.conns {
		all.merge(&one.took)
	}
	return all
}

// drive sends requests, each connection one after the other, until the time is
// over or most are sent (0: no bound). It returns how many were answered and the
// time it took.
func (c *client) drive(d time.Duration, most int64) (int64, time.Duration, error) {
	var (
		stop  atomic.Bool
		sent  atomic.Int64
		wg    sync.WaitGroup
		errs  = make([]error, len(c.conns))
		began = time.Now()
	)
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	for i, one := range c.conns {
		_ = one.SetDeadline(began.Add(d + patience)) // where it fails, so does the request
		wg.Go(func() {
			one.took = latencies{}
			for !stop.Load() && (most == 0 || sent.Load() < most) {
				asked := time.Now()
				switch _, err := one.do(); {
				case err == nil:
					one.took.add(time.Since(asked))
					sent.Add(1)
				case errors.Is(err, errUnavailable):
					c.unavailable.Add(1)
				default:
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return sent.Load(), time.Since(began), errors.Join(errs...)
}
