//go:build unix

package agent

// SetOpenFiles has checks look elsewhere for what the agent has open, until back is called.
func SetOpenFiles(dir string) (back func()) {
	was := openFiles
	openFiles = dir
	return func() { openFiles = was }
}
