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

// UnsupportedError is the error for an input in a format that cannot have Events.
type UnsupportedError struct{ Format string }

func (e *UnsupportedError) Error() string {
	return "looks like " + e.Format + ", which is not supported"
}

// CorruptError is an error of compressed data. The data before it was read.
type CorruptError struct{ Err error }

func (e *CorruptError) Error() string {
	return fmt.Sprintf("cannot be decompressed to its end: %v; Events may be missing", e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// gzipReader is a gzip.Reader that returns CorruptError.
type gzipReader struct{ *gzip.Reader }

func (u gzipReader) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	return n, asCorruptError(err)
}

// asCorruptError returns errors about the data as CorruptError, and others unchanged.
func asCorruptError(err error) error {
	var corrupt flate.CorruptInputError
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, &corrupt) {
		return &CorruptError{err}
	}
	return err
}

// headBytes is enough for every format below: the magic of tar is at offset 257.
const headBytes = 512

// TextReader returns a reader of the input's text in UTF-8. It decompresses gzip and
// converts UTF-16, with or without a byte order mark. Its error is *UnsupportedError or the
// error of r. Reading truncated gzip returns *CorruptError. After io.EOF, the reader of an
// input that needs no conversion returns data that is appended to the input later.
func TextReader(r io.Reader) (io.Reader, error) { return newTextReader(r, 2) }

// newTextReader is TextReader for an input that may be compressed this many times.
func newTextReader(r io.Reader, times int) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	// Do not wait for more bytes than necessary: the input may be a watch.
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
			return nil, asCorruptError(err)
		}
		return newTextReader(gzipReader{z}, times-1)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), len(head) >= 4 && isASCII(head[0]) && isASCII(head[2]) && head[1] == 0 && head[3] == 0:
		return utf16(in, unicode.LittleEndian), nil
	case bytes.HasPrefix(head, []byte("\xfe\xff")), len(head) >= 4 && isASCII(head[1]) && isASCII(head[3]) && head[0] == 0 && head[2] == 0:
		return utf16(in, unicode.BigEndian), nil
	}
	if format := guessBinaryFormat(head); format != "" {
		return nil, &UnsupportedError{format}
	}
	return in, nil
}

// isASCII reports whether a byte may be part of JSON or YAML in ASCII.
func isASCII(c byte) bool { return c == '\n' || c == '\r' || c == '\t' || c >= ' ' && c < 0x7f }

func utf16(in io.Reader, order unicode.Endianness) io.Reader {
	return transform.NewReader(in, unicode.UTF16(order, unicode.UseBOM).NewDecoder())
}

// magics are the first bytes of common file formats.
var magics = []struct{ magic, format string }{
	{"\x1f\x8b", "gzip of gzip of gzip"},
	{"PK\x03\x04", "a zip archive"},
	{"\xfd7zXZ\x00", "xz"},
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"BZh", "bzip2"},
	{"\x04\x22\x4d\x18", "lz4"},
	{"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"},
	{"k8s\x00", "a Kubernetes object in protobuf (use JSON)"},
	{"Salted__", "a file encrypted by openssl"},
	{"age-encryption.org/", "a file encrypted by age"},
	{"-----BEGIN AGE ENCRYPTED FILE", "a file encrypted by age"},
	{"-----BEGIN PGP MESSAGE", "a file encrypted by PGP"},
	{"$ANSIBLE_VAULT;", "a file encrypted by Ansible Vault"},
	{"-----BEGIN ", "a key or a certificate"},
	{"SQLite format 3\x00", "a SQLite database"},
	{"\x7fELF", "an executable"},
	{"%PDF-", "a PDF document"},
	{"PAR1", "a Parquet file"},
}

// guessBinaryFormat returns the likely format of an input by its first bytes, empty for text.
func guessBinaryFormat(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format
		}
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return "a tar archive (extract it first)"
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return "binary data"
	}
	// Such as an OpenPGP packet: mostly invalid UTF-8.
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
