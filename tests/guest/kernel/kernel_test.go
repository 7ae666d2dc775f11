package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// TestImage: the kernel is found in a bzImage, and nothing is read past one that is
// cut or lies about its size.
func TestImage(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write([]byte("\x7fELF and so on"))
	w.Close()
	image := make([]byte, 1024, 4096)
	image[0x1f1] = 1 // sectors of set-up code, beside the first
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(image[0x248:], 5)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(packed.Len()))
	image = append(append(image, "code "...), packed.Bytes()...)
	image = append(image, "more"...)
	payload, err := bzPayload(image)
	if err != nil {
		t.Fatal(err)
	}
	elf, err := decompress(payload)
	if err != nil || !strings.HasPrefix(string(elf), "\x7fELF") {
		t.Errorf("%q, %v", elf, err)
	}
	for _, size := range []int{0, 0x24f, 1024, len(image) - 5} {
		if _, err := bzPayload(image[:size]); err == nil {
			t.Errorf("%d bytes of a bzImage are taken for one", size)
		}
	}
}

// TestDependsOn reads what a module says of itself.
func TestDependsOn(t *testing.T) {
	for module, want := range map[string][]string{
		"ELF\x00license=GPL\x00depends=netfs,9pnet\x00retpoline=Y\x00": {"netfs", "9pnet"},
		"ELF\x00depends=\x00name=9pnet\x00":                            nil,
		"ELF\x00depends=crc32c-generic":                                {"crc32c_generic"},
		"ELF":                                                          nil,
	} {
		if got := dependsOn([]byte(module)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", module, got, want)
		}
	}
}
