// Package loki pushes records to Grafana Loki.
//
// A push holds entries of one stream, because Loki answers 204 to a push of
// several of which it has refused some; a stream is sent slowly enough never to
// be split by Loki into shards, for the same reason. Whatever Loki says, a
// record is either stored, or sent again, or written to the dead letters
// because Loki will never take it.
package loki

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/golang/snappy"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/sink"
)

// Options of a Sink.
type Options struct {
	Name    string // names the file of dead letters
	Cluster string // the label cluster; empty: none

	// DeadLetterDir is the folder for what Loki refuses for good: <Name>.jsonl,
	// and <Name>.jsonl.1 with what came before, 64 MiB together. It is made when
	// it is needed. Empty: the log.
	DeadLetterDir string

	Logger *slog.Logger

	// DialContext opens connections; nil: as net.Dialer does.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sink pushes to one Loki. Its Send may be called from any goroutine, for each
// stream from one at a time.
type Sink struct {
	labels      *labelSet
	encoder     encoder
	client      *client
	deadLetters *deadLetters
	log         *slog.Logger
	limits      sink.Limits

	mu         sync.Mutex             // guards progress
	unfinished map[string]*batchState // by stream, where a batch is settled in part
}

const (
	// pushBytes bounds a push, unless a single entry is larger.
	pushBytes = 512 << 10

	// streamRate is far enough below the rate at which Loki splits a stream into
	// shards (shard_streams.desired_rate, 1536KB), the size of a push counted. It is
	// that of what is sent, of which Loki counts lines and metadata alone:
	// https://github.com/grafana/loki/blob/v3.7.8/pkg/distributor/shardstreams/config.go
	streamRate = 960 << 10

	// concurrency is how many pushes, each of another stream, are on their way.
	concurrency = 16
)

// New returns a sink. It reads the files that the configuration names, and
// connects to nothing.
func New(c Config, o Options) (*Sink, error) {
	var errs []error
	c.Check(o.Cluster, func(key string, err error) {
		if key != "" {
			err = fmt.Errorf("%s: %w", key, err)
		}
		errs = append(errs, err)
	})
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	labels, err := c.labels(o.Cluster)
	if err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	endpoint, err := c.endpoint()
	if err != nil {
		return nil, fmt.Errorf("loki: url: %w", err)
	}
	client, err := newClient(c, endpoint, o.DialContext)
	if err != nil {
		return nil, fmt.Errorf("loki: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	log := o.Logger.With("sink", o.Name)
	if o.Cluster == "" {
		log.Warn("no cluster is configured: in Loki, Events of this cluster cannot be told from those of another")
	}
	path := ""
	if o.DeadLetterDir != "" {
		path = filepath.Join(o.DeadLetterDir, o.Name+".jsonl")
	}
	s := &Sink{
		labels: labels,
		encoder: encoder{
			Encoder:  format.Encoder{Format: c.Format, Standalone: !c.StructuredMetadata},
			metadata: c.StructuredMetadata,
			labels:   labels.Fields(),
		},
		client:      client,
		deadLetters: &deadLetters{path: path, log: log},
		log:         log,
		limits: sink.Limits{
			BatchBytes:   pushBytes,
			BatchWait:    time.Duration(c.BatchWait),
			Concurrency:  concurrency,
			Rate:         float64(c.MaxRate),
			StreamRate:   streamRate,
			MultiRequest: true,
		},
		unfinished: make(map[string]*batchState),
	}
	s.limits.Size = s.Size
	return s, nil
}

// Limits are what suits Loki. They have no timeout: each push has its own, and a
// Send may take several.
func (s *Sink) Limits() sink.Limits { return s.limits }

// Labels are the fields of an Event that are labels of streams.
func (s *Sink) Labels() event.LabelSet { return s.labels.Fields() }

// AppendStream implements sink.Sink: the stream is the string of its labels.
func (s *Sink) AppendStream(dst []byte, r *event.Record) []byte { return s.labels.Append(dst, r) }

// AppendRecord implements sink.Sink: an entry of a push, in protobuf.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte { return s.encoder.append(dst, r) }

// Size is what Loki counts of a batch against its rates: lines and structured
// metadata, without what they are wrapped in.
func (s *Sink) Size(b *sink.Batch) (bytes int) {
	for i := range b.Len() {
		bytes += countedSize(b.Record(i))
	}
	return bytes
}

// Send pushes a batch, in one push if nothing is wrong with it. What was stored
// by the time it fails is not sent again with the batch.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) error {
	p := s.resume(b)
	p.grow(b.Len())
	open := len(p.pending)
	if err := s.pushAll(ctx, b, p); err != nil {
		s.suspend(b, p)
		var why *sink.Error
		if errors.As(err, &why) && len(p.pending) < open {
			progressed := *why
			progressed.Progress = true
			return &progressed
		}
		return err
	}
	if len(p.rejected) > 0 {
		if err := s.deadLetters.sync(); err != nil {
			s.log.Error("dead letters may be lost if this machine is", "err", err)
		}
		return &sink.Error{
			Reason:    sink.ReasonRejected,
			Permanent: true,
			Rejected:  p.rejected,
			Err:       errors.New("the rest is stored; see the dead letters"),
		}
	}
	return nil
}

// resume returns how far a batch has got, if it begins as the last one of its
// stream that was not settled.
func (s *Sink) resume(b *sink.Batch) *batchState {
	s.mu.Lock()
	p := s.unfinished[b.Stream]
	delete(s.unfinished, b.Stream)
	s.mu.Unlock()
	if p == nil || p.size > b.Len() || p.checksum != checksum(b, p.size) {
		return newBatchState()
	}
	return p
}

func (s *Sink) suspend(b *sink.Batch, p *batchState) {
	p.checksum = checksum(b, p.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfinished[b.Stream] = p
}

var seed = maphash.MakeSeed()

// checksum is a checksum of the first n records of a batch.
func checksum(b *sink.Batch, n int) uint64 {
	if n == 0 {
		return 0
	}
	return maphash.Bytes(seed, b.Data[:b.Ends[n-1]])
}

// DeadLetter implements sink.DeadLetterer.
func (s *Sink) DeadLetter(b *sink.Batch, reason string) {
	for i := range b.Len() {
		e, err := decode(b.Record(i))
		if err != nil {
			s.log.Error("a record that is given up cannot be decoded", "stream", b.Stream, "err", err)
			continue
		}
		s.deadLetters.write(deadLetter{Error: reason, Labels: b.Stream, entry: e})
	}
	if err := s.deadLetters.sync(); err != nil {
		s.log.Error("dead letters may be lost if this machine is", "err", err)
	}
}

// pushBuffers are buffers for pushes that are being encoded.
var pushBuffers = sync.Pool{New: func() any { return new(pushBuffer) }}

type pushBuffer struct{ request, compressed []byte }

// encode returns the body of a push. It is not pooled: after an early answer the
// transport may go on reading it.
func encode(stream string, entries ...[]byte) []byte {
	r := pushBuffers.Get().(*pushBuffer)
	defer pushBuffers.Put(r)
	r.request = appendRequest(r.request[:0], stream, entries...)
	r.compressed = snappy.Encode(r.compressed[:cap(r.compressed)], r.request)
	return append([]byte(nil), r.compressed...)
}

// Close closes idle connections and the file of dead letters.
func (s *Sink) Close() error {
	s.client.close()
	return s.deadLetters.close()
}
