package input

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// UnsupportedError is the error for an input that is not text, or has a format of which
// nothing can be read.
type UnsupportedError struct{ What string }

func (e *UnsupportedError) Error() string {
	return "looks like " + e.What + "; Events are not read from that"
}

// CorruptError is why packed data cannot be read to its end. What came before was read.
type CorruptError struct{ Err error }

func (e *CorruptError) Error() string {
	return fmt.Sprintf("cannot be unpacked to its end: %v; Events may be missing", e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// unpacker is a gzip.Reader whose errors about the data are Damage.
type unpacker struct{ *gzip.Reader }

func (u unpacker) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	return n, damage(err)
}

// damage returns an error of unpacking as Damage if it is about the data.
func damage(err error) error {
	var corrupt flate.CorruptInputError
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, &corrupt) {
		return &CorruptError{err}
	}
	return err
}

// headBytes is enough to recognize every format below: the mark of a tar archive is
// at offset 257.
const headBytes = 512

// TextReader returns the text of an input in UTF-8: it decompresses gzip, which it
// recognizes by its first bytes, and converts UTF-16, with or without a byte order
// mark. It returns *Foreign, or the error of reading; reading the text of compressed data
// that breaks off returns *Damage. If the input needs no conversion, data that is
// appended to it after its end can be read as well.
func TextReader(r io.Reader) (io.Reader, error) { return unpack(r, 2) }

// unpack is Text for an input that may be compressed so many times.
func unpack(r io.Reader, times int) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	// Wait for no more than this needs: the input may be a watch.
	head, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if err == nil {
		head, _ = in.Peek(min(headBytes, in.Buffered()))
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")) && times > 0:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, damage(err)
		}
		return unpack(unpacker{z}, times-1)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), len(head) >= 4 && isASCII(head[0]) && isASCII(head[2]) && head[1] == 0 && head[3] == 0:
		return utf16(in, unicode.LittleEndian), nil
	case bytes.HasPrefix(head, []byte("\xfe\xff")), len(head) >= 4 && isASCII(head[1]) && isASCII(head[3]) && head[0] == 0 && head[2] == 0:
		return utf16(in, unicode.BigEndian), nil
	}
	if what := binary(head); what != "" {
		return nil, &UnsupportedError{what}
	}
	return in, nil
}

// isASCII reports whether a byte may be part of JSON or YAML in ASCII.
func isASCII(c byte) bool { return c == '\n' || c == '\r' || c == '\t' || c >= ' ' && c < 0x7f }

func utf16(in io.Reader, order unicode.Endianness) io.Reader {
	return transform.NewReader(in, unicode.UTF16(order, unicode.UseBOM).NewDecoder())
}

// magics are the first bytes of common file formats.
var magics = []struct{ magic, what string }{
	{"\x1f\x8b", "data packed with gzip more than twice"},
	{"PK\x03\x04", "a zip archive"},
	{"\xfd7zXZ\x00", "data packed with xz"},
	{"\x28\xb5\x2f\xfd", "data packed with zstd"},
	{"BZh", "data packed with bzip2"},
	{"\x04\x22\x4d\x18", "data packed with lz4"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"},
	{"k8s\x00", "an object of Kubernetes in protobuf (ask for JSON instead)"},
	{"Salted__", "a file encrypted by openssl"},
	{"age-encryption.org/", "a file encrypted by age"},
	{"-----BEGIN AGE ENCRYPTED FILE", "a file encrypted by age"},
	{"-----BEGIN PGP MESSAGE", "a file encrypted by PGP"},
	{"$ANSIBLE_VAULT;", "a file encrypted by Ansible Vault"},
	{"-----BEGIN ", "a key or a certificate"},
	{"SQLite format 3\x00", "a SQLite database"},
	{"\x7fELF", "a program"},
	{"%PDF-", "a PDF document"},
	{"PAR1", "a Parquet file"},
}

// binary returns the likely format of an input that cannot hold Events, by its first
// bytes; empty if it may hold some.
func binary(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.what
		}
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return "a tar archive (unpack it first)"
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return "binary data"
	}
	// An OpenPGP packet and the like: next to nothing of it is valid UTF-8.
	invalid := 0
	for b := head; len(b) > 0; {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			invalid++
		}
		b = b[size:]
	}
	if invalid > len(head)/10 {
		return "binary data, perhaps encrypted"
	}
	return ""
}
