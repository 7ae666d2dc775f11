package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"meta9/fs/errs"
)

// Why an etcd cannot be used, in words for the operator.

// noClient says why there is no client: with a user, clientv3.New asks etcd for a token, which can fail.
func (c *Config) noClient(ctx context.Context, err error) error {
	if ctx.Err() != nil || !isAny(err, context.DeadlineExceeded) {
		return c.explain(err)
	}
	for _, ep := range c.Endpoints {
		if why := c.why(ctx, ep, err); why != err {
			return c.explain(fmt.Errorf("%s: %w", ep, why))
		}
	}
	return c.explain(err)
}

// worst is the first error that does not end by waiting. If there is none, it is the first of all.
func worst(all []error) error {
	for _, err := range all {
		if err != nil && errs.KindOf(err) != errs.Busy {
			return err
		}
	}
	return cmp.Or(all...)
}

// probeParts: probe takes at most one of so many parts of Patience.
const probeParts = 10

// probe asks all endpoints at once by HTTP. It returns an error if none of them can be used, for reasons
// that are known at once: gRPC would try for seconds, and then only say that the time is over. nil: one of
// them may be good.
func (c *Config) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience/probeParts)
	defer cancel()
	answers := make(chan error, len(c.Endpoints))
	for _, ep := range c.Endpoints {
		go func() {
			err := c.version(ctx, ep)
			switch {
			case ctx.Err() != nil || !unusable(err):
				err = nil
			case err != nil:
				err = c.explain(fmt.Errorf("%s: %w", ep, err))
			}
			answers <- err
		}()
	}
	var failed []error
	for range c.Endpoints {
		err := <-answers
		if err == nil {
			return nil
		}
		failed = append(failed, err)
	}
	return worst(failed)
}

// unusable tells whether gRPC would fail as well, where HTTP had this error. An answer in another protocol
// does not say so, since a member may have another address for HTTP; nor does a time that is over.
func unusable(err error) bool {
	var none dialError
	if errors.As(err, &none) {
		var timeout net.Error
		return !errors.As(none.error, &timeout) || !timeout.Timeout()
	}
	return errors.Is(err, errTLS) || errors.Is(err, errNoTLS) || errors.As(err, new(*tls.CertificateVerificationError)) || alerted(err)
}

// alerted tells whether the server has ended the handshake, as one that wants a certificate does.
func alerted(err error) bool {
	return err != nil && strings.Contains(err.Error(), "remote error: tls")
}

// why asks the endpoint by HTTP for a better error: when gRPC cannot connect, it only says
// that the time is over. It returns err if HTTP says no more.
func (c *Config) why(ctx context.Context, ep string, err error) error {
	if !isAny(err, context.DeadlineExceeded) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Patience/3)
	defer cancel()
	return cmp.Or(c.version(ctx, ep), err)
}

// version asks the endpoint by HTTP for etcd's version; nil: it has told one.
func (c *Config) version(ctx context.Context, ep string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ep+"/version", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: c.TLS, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	var not tls.RecordHeaderError
	switch {
	case errors.As(err, &not), err != nil && strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return errNoTLS
	case errors.Is(err, io.EOF) && c.TLS == nil && speaksTLS(ctx, req.URL.Host):
		return errTLS
	case errors.Is(err, io.EOF) && c.TLS != nil && new(Config).version(ctx, "http://"+req.URL.Host) == nil:
		return errNoTLS
	case err != nil:
		return withoutAddress(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case strings.Contains(string(body), "HTTPS server"):
		return errTLS
	case resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "etcdserver"):
		return errNoEtcd
	}
	return nil
}

// speaksTLS tells whether the server begins a handshake, whoever it is.
func speaksTLS(ctx context.Context, addr string) bool {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // nothing is told it
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || alerted(err)
}

// withoutAddress is an error of HTTP without the address, which its reader knows.
func withoutAddress(err error) error {
	if of := (*url.Error)(nil); errors.As(err, &of) {
		err = of.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		if call := (*os.SyscallError)(nil); errors.As(op.Err, &call) {
			return dialError{call.Err}
		}
		return dialError{op.Err}
	}
	return err
}

// dialError is why there is no connection.
type dialError struct{ error }

var (
	errNoEtcd = errors.New("that is no etcd")
	errTLS    = errors.New("it speaks TLS: write https://")
	errNoTLS  = errors.New("it speaks no TLS: write http://")
)

// explain turns an error of etcd's into words for the operator.
func (c *Config) explain(err error) error {
	text := err.Error()
	if _, its, ok := strings.Cut(text, "desc = "); ok && strings.Contains(its, anotherEtcd) {
		text = its
	}
	switch is := func(kinds ...error) bool { return isAny(err, kinds...) }; {
	case is(rpctypes.ErrNoSpace):
		return errs.New(errs.NoSpace, "etcd is full (its NOSPACE alarm): compact and defragment it, or raise its quota, and disarm the alarm")
	case is(rpctypes.ErrPermissionDenied) && c.User == "":
		return errs.New(errs.IO, "etcd lets the user of this host's certificate%s not read and write below %s: grant that to a role of the user that is its common name", inBrackets(c.Cert), c.Prefix)
	case is(rpctypes.ErrPermissionDenied):
		return errs.New(errs.IO, "etcd lets the user %q not read and write below %s: grant that to its role", c.User, c.Prefix)
	case is(rpctypes.ErrAuthFailed):
		return errs.New(errs.IO, "etcd refuses the user %q: the name or the password is wrong", c.User)
	case is(rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken):
		return errs.New(errs.IO, "etcd wants a user and a password")
	case is(rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrTimeoutDueToLeaderFail):
		return errs.New(errs.Busy, "etcd has no leader: most of its members are down or cut off")
	case is(rpctypes.ErrNotCapable):
		return errs.New(errs.Busy, "etcd has just begun, and takes no requests yet")
	case is(rpctypes.ErrCompacted):
		return errs.New(errs.IO, "etcd has compacted what was to be read")
	case tooLarge(err):
		return errs.New(errs.TooLarge, "etcd takes less in one transaction than its defaults are: %v", err)
	case errors.Is(err, errNoEtcd), errors.Is(err, errTLS), errors.Is(err, errNoTLS):
		return errs.New(errs.IO, "%s", text)
	case strings.Contains(text, "unknown authority") && c.CA == "":
		return errs.New(errs.IO, "etcd's certificate is of an authority that this system does not know, and cluster.ca is not set: %s", text)
	case strings.Contains(text, "unknown authority"):
		return errs.New(errs.IO, "etcd's certificate is of no authority of cluster.ca, %s: %s", c.CA, text)
	case alerted(err) && c.Cert == "":
		return errs.New(errs.IO, "etcd wants a certificate of its clients, and cluster.cert is not set: %s", text)
	case alerted(err):
		return errs.New(errs.IO, "etcd refuses the certificate of cluster.cert, %s: %s", c.Cert, text)
	case strings.Contains(text, "certificate"), strings.Contains(text, "tls:"):
		return errs.New(errs.IO, "etcd's certificate or ours is refused: %s", text)
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "DeadlineExceeded"), strings.Contains(text, "deadline"):
		return errs.New(errs.Busy, "etcd does not answer: %s", text)
	case errors.As(err, new(dialError)), errors.As(err, new(*net.OpError)), strings.Contains(text, "connection refused"):
		return errs.New(errs.Busy, "etcd cannot be reached: %s", text)
	case strings.Contains(text, anotherEtcd):
		return errs.New(errs.Busy, "%s", text)
	case unavailable(err):
		return errs.New(errs.Busy, "etcd has not answered: %s", text)
	}
	return errs.New(errs.IO, "etcd: %s", text)
}

// inBrackets is a file in brackets, if there is one.
func inBrackets(file string) string {
	if file == "" {
		return ""
	}
	return " (" + file + ")"
}
