// Package httpunix speaks HTTP at unix sockets, for the tests and the bench.
package httpunix

import (
	"context"
	"io"
	"net"
	"net/http"
)

// Client is a client of the server at that socket, whatever host its URLs name. Who is done
// with it calls its CloseIdleConnections.
func Client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// Get is the whole answer to a GET of a path.
func Get(c *http.Client, path string) (code int, body string, err error) {
	resp, err := c.Get("http://127.0.0.1" + path) // nocloud refuses names
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}
