package upstream

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hugelgupf/p9/p9"

	"meta9/fs"
	"meta9/fs/errs"
	"meta9/fs/vm"
)

// Modes of what is here, as in a VM's own folder.
const (
	dirMode     = 0o755
	keyMode     = 0o600
	derivedMode = 0o444
)

// documented are the names that sdc/ lists, if the service has them. Others can be
// walked to.
var documented = []string{
	"uuid", "alias", "hostname", "dns_domain", "datacenter_name", "server_uuid", "owner_uuid", "image_uuid",
	"nics", "resolvers", "routes", "tmpfs", "maintain_resolvers", "vendor-data", "operator-script", "volumes",
}

// qidPath is the qid.path of a file here.
func (s *Service) qidPath(folder, name string) uint64 {
	return fs.DerivedPath(0, "upstream\x00"+s.path+"\x00"+folder, name)
}

// Node is the folder of the service, for one View.
func (s *Service) Node(v *fs.View) fs.Node {
	return fs.NewFolder(s.qidPath("", ""), func() []fs.NamedNode {
		return []fs.NamedNode{
			{Name: "keys", Node: &keysDir{dir{s, v, "keys", "", keyMode}}},
			{Name: "sdc", Node: &sdcDir{dir{s, v, "sdc", "sdc:", derivedMode}}},
		}
	})
}

// dir is a folder of keys whose names have a prefix.
type dir struct {
	service *Service
	view    *fs.View
	name    string
	prefix  string
	mode    uint16 // of its files
}

// QID has version 0, as that of all files here.
func (d *dir) QID() p9.QID {
	return p9.QID{Type: p9.TypeDir, Path: d.service.qidPath(d.name, "")}
}

// Stat does not ask the service, so that the folders are there when it is not.
func (d *dir) Stat(st *fs.Stat) error {
	*st = fs.Stat{QID: d.QID(), Mode: dirMode, Name: d.name}
	return nil
}

// file is the file of a name; the service is not asked. errs.NotFound: no key can have
// such a name.
func (d *dir) file(name string) (file, error) {
	key, err := vm.KeyName(name)
	if err != nil {
		return file{}, errs.NotFound
	}
	return file{dir: d, name: name, key: d.prefix + key}, nil
}

// find is the file of a name, and its value. errs.NotFound: the service has no such
// key.
func (d *dir) find(name string) (f file, value []byte, err error) {
	if f, err = d.file(name); err == nil {
		value, err = f.get()
		f.length = len(value)
	}
	return f, value, err
}

// listOf is the question of a step that lists a folder (fs.Ask).
type listOf struct {
	service *Service
	folder  string
}

// appendFile appends the value of one name.
func (d *dir) appendFile(b []byte, name string, max int) ([]byte, error) {
	_, value, err := d.find(name)
	if err != nil {
		return b, err
	}
	return appendValue(b, value, max)
}

// list calls fn with the files of the keys, nil: of all keys, in the order of their
// QIDs, from the one behind after on.
func (d *dir) list(after uint64, keys []string, fn func(uint64, *fs.Stat) bool) error {
	lengths, err := fs.Ask(d.view, listOf{d.service, d.name}, func() (map[string]int, error) { return d.service.lengths(keys) })
	if err != nil {
		return err
	}
	var files []file
	for key, length := range lengths {
		name := strings.TrimPrefix(key, d.prefix)
		if vm.ValidKey(name) == nil {
			files = append(files, file{dir: d, name: vm.FileName(name), key: key, length: length})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.QID().Path, b.QID().Path) })
	var st fs.Stat
	for i := range files {
		f := &files[i]
		if f.QID().Path <= after {
			continue
		}
		if _ = f.Stat(&st); !fn(st.QID.Path, &st) {
			break
		}
	}
	return nil
}

// keysDir is keys/: all keys but the derived ones (sdc:).
type keysDir struct{ dir }

// Walk asks the service for the key. A derived key is not here.
func (d *keysDir) Walk(name string) (fs.Node, error) {
	if strings.HasPrefix(name, "sdc:") {
		return nil, errs.NotFound
	}
	f, _, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return &keyFile{file: f}, nil
}

// AppendFile asks once; a walk and a read would ask twice.
func (d *keysDir) AppendFile(b []byte, name string, max int) ([]byte, error) {
	if strings.HasPrefix(name, "sdc:") {
		return b, errs.NotFound
	}
	return d.appendFile(b, name, max)
}

// List asks the service for all keys.
func (d *keysDir) List(after uint64, fn func(uint64, *fs.Stat) bool) error {
	return d.list(after, nil, fn)
}

// Put creates or replaces the key.
func (d *keysDir) Put(name string, data []byte, _ fs.Author, done func(error)) {
	f, err := d.writable(name)
	if err != nil {
		done(err)
		return
	}
	data = slices.Clone(data)
	go func() { done(d.service.put(f.key, data)) }()
}

// writable is the file of a name, or the error why no key may have that name.
func (d *keysDir) writable(name string) (file, error) {
	if _, err := vm.KeyName(name); err != nil {
		return file{}, err
	}
	return d.file(name)
}

// Create makes a file that is put to the service with the first write, or when it is
// closed: SmartOS takes no empty value.
func (d *keysDir) Create(name string, f fs.Flags, _ fs.Author, done func(fs.Node, error)) {
	at, err := d.writable(name)
	if err != nil {
		done(nil, err)
		return
	}
	go func() {
		value, err := d.service.get(at.key)
		at.length = len(value)
		switch {
		case err == nil && f&fs.Excl != 0:
			done(nil, errs.Exists)
		case err == nil:
			done(&keyFile{file: at, found: true, value: value}, nil)
		case errs.KindOf(err) == errs.NotFound:
			done(&keyFile{file: at, created: true}, nil)
		default:
			done(nil, err)
		}
	}()
}

// Unlink removes the key. It gets the key first: the protocol's DELETE does not say
// whether there was one, and rm must.
func (d *keysDir) Unlink(name string, _ fs.Author, done func(error)) {
	f, err := d.file(name)
	if err != nil {
		done(err)
		return
	}
	go func() { done(d.service.remove(f.key)) }()
}

// sdcDir is sdc/.
type sdcDir struct{ dir }

// Walk asks the service for sdc:NAME, documented or not.
func (d *sdcDir) Walk(name string) (fs.Node, error) {
	f, _, err := d.find(name)
	if err != nil {
		return nil, noText(err)
	}
	return &sdcFile{f}, nil
}

// AppendFile is keysDir's.
func (d *sdcDir) AppendFile(b []byte, name string, max int) ([]byte, error) {
	b, err := d.appendFile(b, name, max)
	return b, noText(err)
}

// noText is errs.NotFound for a refusal: the service refuses a derived key that is
// there but is an object or an array.
func noText(err error) error {
	if errs.KindOf(err) == errs.NotPermitted {
		return errs.NotFound
	}
	return err
}

// Put is refused for every name.
func (d *sdcDir) Put(_ string, _ []byte, _ fs.Author, done func(error)) {
	done(fs.Missing(&sdcFile{}, fs.OpWrite))
}

// List asks the service for the documented names.
func (d *sdcDir) List(after uint64, fn func(uint64, *fs.Stat) bool) error {
	keys := make([]string, len(documented))
	for i, name := range documented {
		keys[i] = d.prefix + name
	}
	return d.list(after, keys, fn)
}
