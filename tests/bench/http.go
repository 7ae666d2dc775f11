package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"meta9/tests/raw"
)

// byGet reads a file by an HTTP GET on a connection that is kept. The first
// reply is read with care to learn its length, which all others have.
func byGet(_ *instance, c *raw.Conn, i int) (s script, err error) {
	get := fmt.Appendf(nil, "GET /%s HTTP/1.1\r\nHost: meta9\r\n\r\n", fileName(i))
	if err := c.Send(get); err != nil {
		return s, err
	}
	n := &counter{Conn: c.Net}
	resp, err := http.ReadResponse(bufio.NewReader(n), nil)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != fileValue() {
		err = errors.New("GET gave another value")
	}
	return script{frames: [][]byte{get}, bare: n.n}, err
}

// counter counts the bytes that are read.
type counter struct {
	net.Conn
	n int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += n
	return n, err
}
