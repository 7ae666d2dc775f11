package vm

import (
	"crypto/rand"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"meta9/fs/errs"
)

// MaxName is the longest name of a key, and of its file, in bytes. v9fs fails a
// whole folder that lists a longer one.
const MaxName = 255

// MaxTxn is the longest transaction, in bytes of JSON (docs/tree.md, "Transactions").
const MaxTxn = 1 << 20

// NewKey says by which rule no key can get this name: beside those of ValidKey, it
// has no control characters of C1 and none that turn the text around them (Unicode's
// Bidi_Control), so that in a listing every name looks like what it is. Keys that
// have such a name from an earlier version keep it.
func NewKey(key string) error {
	if strings.ContainsFunc(key, disguises) {
		return errs.New(errs.Invalid, "key %q: no control characters and no marks of text direction in a new key", key)
	}
	return ValidKey(key)
}

// disguises tells whether r makes a name look like another one.
func disguises(r rune) bool {
	return 0x80 <= r && r <= 0x9f || unicode.Is(unicode.Bidi_Control, r)
}

// ValidKey says by which rule key cannot be the name of a key: it is 1 to
// MaxName bytes of UTF-8, so is its file name, and it has no control bytes and
// no blank at either end (mdata trims keys, so nobody could ask for it). The
// error is NameTooLong or Invalid.
func ValidKey(key string) error {
	switch {
	case key == "":
		return errs.New(errs.Invalid, "a key has at least one character")
	case len(key) > MaxName:
		return errs.New(errs.NameTooLong, "a key is at most %d bytes, this is %d", MaxName, len(key))
	case !utf8.ValidString(key):
		return errs.New(errs.Invalid, "a key is UTF-8")
	case strings.ContainsFunc(key, controlByte):
		return errs.New(errs.Invalid, "key %q: no control characters in a key", key)
	case strings.TrimFunc(key, blank) != key:
		return errs.New(errs.Invalid, "key %q: no blank at either end of a key", key)
	}
	if n := len(key) + 2*escapes(key); n > MaxName {
		return errs.New(errs.NameTooLong, "a key's file name, with %%2F for / and %%25 for %%, is at most %d bytes, this is %d", MaxName, n)
	}
	return nil
}

func controlByte(r rune) bool { return r < ' ' || r == 0x7f }

// blank is what JavaScript's trim takes away.
func blank(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' }

// escapes counts the bytes of key that its file name spells with three.
func escapes(key string) int {
	if key == "." || key == ".." {
		return len(key)
	}
	return strings.Count(key, "/") + strings.Count(key, "%")
}

// FileName is the name of the key's file: / and % are written %2F and %25, the
// whole names . and .. %2E and %2E%2E. It allocates only when it escapes.
func FileName(key string) string {
	switch {
	case escapes(key) == 0:
		return key
	case key == ".":
		return "%2E"
	case key == "..":
		return "%2E%2E"
	}
	b := make([]byte, 0, len(key)+2*escapes(key))
	for i := range len(key) {
		switch key[i] {
		case '/':
			b = append(b, "%2F"...)
		case '%':
			b = append(b, "%25"...)
		default:
			b = append(b, key[i])
		}
	}
	return string(b)
}

// KeyName is the key whose file has this name. Only the spelling that FileName
// makes of a valid key names one; the error is NameTooLong or Invalid.
func KeyName(file string) (string, error) {
	if len(file) > MaxName {
		return "", errs.New(errs.NameTooLong, "a file name is at most %d bytes, this is %d", MaxName, len(file))
	}
	key, ok := unescape(file)
	if !ok {
		return "", errs.New(errs.Invalid, "file name %q: / is written %%2F, %% %%25, and the names . and .. are %%2E and %%2E%%2E; nothing else is escaped", file)
	}
	return key, ValidKey(key)
}

// unescape undoes FileName; ok is false for any other spelling.
func unescape(file string) (key string, ok bool) {
	switch file {
	case "%2E":
		return ".", true
	case "%2E%2E":
		return "..", true
	case ".", "..":
		return "", false
	}
	if strings.IndexByte(file, '/') >= 0 {
		return "", false
	}
	if strings.IndexByte(file, '%') < 0 {
		return file, true
	}
	b := make([]byte, 0, len(file))
	for i := 0; i < len(file); i++ {
		switch {
		case file[i] != '%':
			b = append(b, file[i])
			continue
		case strings.HasPrefix(file[i:], "%2F"):
			b = append(b, '/')
		case strings.HasPrefix(file[i:], "%25"):
			b = append(b, '%')
		default:
			return "", false
		}
		i += 2
	}
	return string(b), true
}

// NewUUID is a random UUID (version 4), for a VM or anything else that has none.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ValidUUID says whether s is a UUID in its canonical form: 36 characters, lower
// case. The error is Invalid.
func ValidUUID(s string) error {
	if !uuidShape(s) || strings.ToLower(s) != s {
		return errs.New(errs.Invalid, "%q is not a UUID such as 01b2c898-945f-11e1-a523-af1afbe22822, in lower case", Clip(s))
	}
	return nil
}

// ParseUUID is the canonical form of a UUID that may have upper-case digits. The
// error is Invalid.
func ParseUUID(s string) (string, error) {
	if !uuidShape(s) {
		return "", errs.New(errs.Invalid, "%q is not a UUID such as 01b2c898-945f-11e1-a523-af1afbe22822", Clip(s))
	}
	return strings.ToLower(s), nil
}

func uuidShape(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && !hexDigit(s[i]) {
			return false
		}
	}
	return true
}

func hexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Clip keeps an error's text short, whatever it quotes.
func Clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
