// Package peers holds servers that others wrote, each serving the same flat
// folder of small files: what the bench measures meta9d against, and what the
// foreign clients are tried on before they meet meta9d. Every function serves
// until its listener is closed.
package peers

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	p9p "github.com/docker/go-p9p"
	"github.com/hugelgupf/p9/fsimpl/localfs"
	"github.com/hugelgupf/p9/fsimpl/staticfs"
	"github.com/hugelgupf/p9/p9"
	"github.com/knusbaum/go9p"
	"github.com/knusbaum/go9p/fs"
	"github.com/lionkov/go9p/p"
	"github.com/lionkov/go9p/p/srv"
)

// Files are the served files by name.
type Files map[string]string

// Serve is a server: it serves files on l until l is closed.
type Serve func(l net.Listener, files Files) error

// each accepts connections and runs serve on each, in a goroutine of its own.
func each(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// Static is hugelgupf/p9's server on its staticfs: 9P2000.L from memory.
func Static(l net.Listener, files Files) error {
	var opts []staticfs.Option
	for name, value := range files {
		opts = append(opts, staticfs.WithFile(name, value))
	}
	root, err := staticfs.New(opts...)
	if err != nil {
		return err
	}
	return serveP9(l, root)
}

// Local is hugelgupf/p9's server on its localfs: 9P2000.L from a real folder.
func Local(l net.Listener, files Files) error {
	dir, err := os.MkdirTemp("", "peer-local-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for name, value := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	return serveP9(l, localfs.Attacher(dir))
}

func serveP9(l net.Listener, root p9.Attacher) error {
	s := p9.NewServer(root)
	return each(l, func(c net.Conn) { s.Handle(c, c) })
}

// Lionkov is lionkov/go9p's server on a tree of its File: 9P2000 or 9P2000.u.
func Lionkov(l net.Listener, files Files) error {
	user := p.OsUsers.Uid2User(os.Geteuid())
	root := new(srv.File)
	if err := root.Add(nil, "/", user, nil, p.DMDIR|0o777, nil); err != nil {
		return err
	}
	for name, value := range files {
		if err := new(srv.File).Add(root, name, user, nil, 0o666, lionkovFile(value)); err != nil {
			return err
		}
	}
	s := srv.NewFileSrv(root)
	s.Dotu = true
	s.Start(s)
	return s.StartListener(l)
}

type lionkovFile string

func (f lionkovFile) Read(_ *srv.FFid, buf []byte, offset uint64) (int, error) {
	return copy(buf, f[min(offset, uint64(len(f))):]), nil
}

// Knusbaum is knusbaum/go9p's server on its StaticFiles: 9P2000.
func Knusbaum(l net.Listener, files Files) error {
	tree, root := fs.NewFS("glenda", "glenda", 0o777, fs.IgnorePermissions())
	for name, value := range files {
		st := tree.NewStat(name, "glenda", "glenda", 0o666)
		if err := root.AddChild(fs.NewStaticFile(st, []byte(value))); err != nil {
			return err
		}
	}
	s := tree.Server()
	return each(l, func(c net.Conn) { go9p.ServeReadWriter(c, c, s) })
}

// Docker is docker/go-p9p's server on a Session in memory: 9P2000.
func Docker(l net.Listener, files Files) error {
	log.SetOutput(io.Discard) // it logs every connection that ends
	return each(l, func(c net.Conn) {
		s := newDockerSession(files)
		if err := p9p.ServeConn(context.Background(), c, p9p.Dispatch(s)); err != nil {
			log.Print(err)
		}
	})
}

// HTTP is net/http answering GET /NAME.
func HTTP(l net.Listener, files Files) error {
	bodies := make(map[string][]byte, len(files))
	for name, value := range files {
		bodies["/"+name] = []byte(value)
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := bodies[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	}))
}
