//go:build unix

package agent

// SetOpenFiles has checks look elsewhere for what the agent has open, until back is called.
func SetOpenFiles(dir string) (back func()) {
	was := openFiles
	openFiles = dir
	return func() { openFiles = was }
}

// OpenPlace goes to the folder of path.
func OpenPlace(path string) error {
	p, err := openPlace(path)
	if err == nil {
		p.Close()
	}
	return err
}

// IDs are the numbers of who is to have the file.
func (f *File) IDs() (uid, gid int, err error) {
	o, err := f.owned()
	return o.uid, o.gid, err
}
