package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClusterSettings: what cannot be meant is refused before anybody is asked, in one
// line that says what is wrong.
func TestClusterSettings(t *testing.T) {
	dir := shortDir(t)
	cert, key := selfSigned(t, dir, "host")
	for name, text := range map[string]string{"secret": "0123456789abcdef\n", "short": "0123\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = `endpoints = ["https://10.0.0.1:2379", "https://etcd2:2379"]` + "\nkey_file = \"secret\"\nhost = \"a\"\n"
	for text, reason := range map[string]string{
		`host = "a"`:                                                                 "cluster.endpoints: none is set",
		`endpoints = ["10.0.0.1:2379"]`:                                              `"10.0.0.1:2379" is not https://HOST:PORT`,
		`endpoints = ["https://10.0.0.1"]`:                                           "is not https://HOST:PORT",
		`endpoints = ["https://a:1/v3"]`:                                             "is not https://HOST:PORT",
		`endpoints = ["https://root:x@a:1"]`:                                         "is not https://HOST:PORT",
		`endpoints = ["https://a:1", "http://b:1"]`:                                  "some are https, and some are not",
		`endpoints = ["http://127.0.0.1:2379"]`:                                      "cluster.key_file is not set: every fleet has a secret of its own",
		good + `prefix = "meta9"`:                                                    `"meta9" is not as /meta9/v1/`,
		good + `prefix = "/a b/"`:                                                    `"/a b/" is not as /meta9/v1/`,
		good + `write_rate = "1KiB"`:                                                 "cluster.write_rate: 1024 bytes a second is neither 0, for no bound, nor at least 64KiB",
		good + `write_rate = "fast"`:                                                 `"fast" is no number with or without KiB`,
		good + `user = "meta9"`:                                                      "user and cluster.password_file go together",
		good + `cert = "host.crt"`:                                                   "cluster.cert and cluster.key go together",
		good + `ca = "nowhere"`:                                                      "cluster.ca: open nowhere",
		good + `ca = "secret"`:                                                       "no certificate is in secret",
		good + "cert = \"" + cert + "\"\nkey = \"secret\"":                           "cluster.cert and cluster.key: " + cert + " and secret: ",
		good + "user = \"meta9\"\npassword_file = \"nowhere\"":                       "cluster.password_file: open nowhere",
		good + "user = \"meta9\"\npassword_file = \"empty\"":                         "empty is empty",
		strings.Replace(good, `"secret"`, `"short"`, 1):                              "cluster.key_file: short: 4 bytes; at least 16",
		strings.Replace(good, `"secret"`, `"nowhere"`, 1):                            "cluster.key_file: open nowhere",
		"endpoints = [\"http://a:1\"]\nkey_file = \"secret\"\nca = \"" + cert + "\"": "are for endpoints that are https",
	} {
		oneLineWith(t, exitUsage, reason, dir, "--check-config", "--config", settings(t, "[cluster]\n"+text+"\n"))
	}
	whole := settings(t, "[cluster]\n"+good+"ca = \""+cert+"\"\ncert = \""+cert+"\"\nkey = \""+key+"\"\n")
	if code, _, errs := call(t, dir, "--check-config", "--config", whole); code != exitOK {
		t.Errorf("good settings: exit %d, %s", code, errs)
	}
	for _, flag := range []string{"--check", "--salvage", "--restore=x"} {
		oneLineWith(t, exitUsage, "the VMs are in etcd", dir, flag, "--config", whole)
	}
	oneLineWith(t, exitUsage, "cannot be a mirror", dir, "--vminfod-from", "http://a:1", "--config", whole)
}
