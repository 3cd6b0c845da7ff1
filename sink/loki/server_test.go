package loki_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hindsight-events/hindsight/sink/loki"
)

// entry is what a push holds of a record, decoded by what is known of the
// protocol and not by the sink's own code.
type entry struct {
	at       time.Time
	line     string
	metadata [][2]string
}

// decodePush reads the body of a push, which must hold one stream.
func decodePush(body []byte) (labels string, entries []entry, err error) {
	plain, err := snappy.Decode(nil, body)
	if err != nil {
		return "", nil, err
	}
	streams := 0
	message(plain, &err, func(number protowire.Number, stream []byte, _ uint64) {
		if number != 1 {
			err = fmt.Errorf("field %d of the request", number)
		}
		streams++
		message(stream, &err, func(number protowire.Number, v []byte, _ uint64) {
			switch number {
			case 1:
				labels = string(v)
			case 2:
				entries = append(entries, decodeEntry(v, &err))
			default:
				err = fmt.Errorf("field %d of the stream", number)
			}
		})
	})
	if streams != 1 {
		err = fmt.Errorf("%d streams in a push", streams)
	}
	return labels, entries, err
}

func decodeEntry(b []byte, err *error) (e entry) {
	e.at = time.Unix(0, 0)
	message(b, err, func(number protowire.Number, v []byte, _ uint64) {
		switch number {
		case 1:
			message(v, err, func(number protowire.Number, _ []byte, n uint64) {
				unit := []time.Duration{time.Second, 1}[number-1]
				e.at = e.at.Add(time.Duration(n) * unit)
			})
		case 2:
			e.line = string(v)
		case 3:
			var pair [2]string
			message(v, err, func(number protowire.Number, v []byte, _ uint64) { pair[number-1] = string(v) })
			e.metadata = append(e.metadata, pair)
		default:
			*err = fmt.Errorf("field %d of an entry", number)
		}
	})
	return e
}

func message(b []byte, err *error, visit func(number protowire.Number, v []byte, n uint64)) {
	for len(b) > 0 && *err == nil {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			*err = protowire.ParseError(n)
			return
		}
		b = b[n:]
		var v []byte
		var i uint64
		if kind == protowire.BytesType {
			v, n = protowire.ConsumeBytes(b)
		} else {
			i, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			*err = protowire.ParseError(n)
			return
		}
		b = b[n:]
		visit(number, v, i)
	}
}

// server is a Loki under a test's control. It stores what answer accepts: a
// status of 204 or nothing at all.
type server struct {
	*httptest.Server
	test *testing.T

	mu       sync.Mutex // guards the rest
	answer   func(w http.ResponseWriter, labels string, entries []entry) (status int, body string)
	requests []*http.Request
	sizes    []int // entries of each push
	stored   []string
	hang     bool
	fail     int
}

func newServer(t *testing.T) *server {
	s := &server{test: t}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	labels, entries, err := decodePush(body)
	if err != nil {
		s.test.Errorf("not a push: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.sizes = append(s.sizes, len(entries))
	if s.hang {
		s.mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-s.test.Context().Done():
		}
		s.mu.Lock()
		return
	}
	status, text := http.StatusNoContent, ""
	if s.fail > 0 {
		s.fail--
		status, text = http.StatusServiceUnavailable, "at least 1 live replicas required, could only find 0"
	} else if s.answer != nil {
		status, text = s.answer(w, labels, entries)
	}
	if status == http.StatusNoContent || status == http.StatusOK {
		for _, e := range entries {
			s.stored = append(s.stored, e.line)
		}
	}
	if status == 0 {
		panic(http.ErrAbortHandler) // closes the connection
	}
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) Received() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.stored, "\n")
}

func (s *server) Fail(n int)  { s.set(func() { s.fail = n }) }
func (s *server) Hang()       { s.set(func() { s.hang = true }) }
func (s *server) Break() bool { return false } // a Loki can always be mended

// newSink makes a sink that pushes to a server.
func newSink(t *testing.T, url string, change func(*loki.Config, *loki.Options)) *loki.Sink {
	t.Helper()
	c := loki.DefaultConfig()
	c.URL = loki.URL(url)
	o := loki.Options{Name: "loki", Cluster: "prod", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c, &o)
	}
	s, err := loki.New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
