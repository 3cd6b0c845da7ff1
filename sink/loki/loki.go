// Package loki pushes records to Grafana Loki.
//
// A push holds entries of one stream: Loki can respond with 204 to a push of several streams
// although it has rejected some of them. For the same reason the rate of a stream stays below the
// rate at which Loki splits it into shards. After any response, a record is either stored, or
// pending, or a dead letter because Loki will never accept it.
//
// Where to look: response.go classifies responses, rejection.go parses the message of a rejection,
// partial.go finds the entries that it concerns, and rejectedpush.go retries, halves or rejects the
// push.
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
	Name    string // of the sink; also the name of the dead letter file
	Cluster string // the label cluster; empty: none

	// DeadLetterDir is the directory of the dead letter file, <Name>.jsonl, and its
	// predecessor <Name>.jsonl.1, of 64 MiB together. It is created with the first
	// dead letter. Empty: dead letters are logged.
	DeadLetterDir string

	Logger *slog.Logger

	// DialContext opens connections; nil: net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sink pushes to one Loki. Send may be called concurrently for different streams.
type Sink struct {
	labels      *labelSet
	encoder     encoder
	client      *client
	deadLetters *deadLetterLog
	log         *slog.Logger
	limits      sink.Limits

	mu         sync.Mutex             // guards unfinished
	unfinished map[string]*batchState // batches that are partly stored or rejected, by stream
}

const (
	// pushBytes bounds a push, unless a single entry is larger.
	pushBytes = 512 << 10

	// streamRate keeps the rate of a stream, plus one push, below the rate at which Loki
	// splits it into shards (shard_streams.desired_rate, 1536KB). It limits the encoded
	// bytes, of which Loki counts lines and metadata only:
	// https://github.com/grafana/loki/blob/v3.7.8/pkg/distributor/shardstreams/config.go
	streamRate = 960 << 10

	// concurrency is the number of concurrent pushes, each of another stream.
	concurrency = 16
)

// New returns a sink. It reads the files that the configuration names and opens no connection.
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
	labels, err := newLabelSet(&c, o.Cluster)
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
		log.Warn("no cluster is configured: in Loki, Events of several clusters cannot be distinguished")
	}
	path := ""
	if o.DeadLetterDir != "" {
		path = filepath.Join(o.DeadLetterDir, o.Name+".jsonl")
	}
	s := &Sink{
		labels: labels,
		encoder: encoder{
			Encoder:  format.Encoder{Format: c.Format, Standalone: !c.StructuredMetadata, Short: c.Line == LineShort},
			metadata: c.StructuredMetadata,
			labels:   labels.fields, attributes: labels.attributes,
		},
		client:      client,
		deadLetters: &deadLetterLog{path: path, log: log},
		log:         log,
		limits: sink.Limits{
			BatchBytes:      pushBytes,
			BatchWait:       time.Duration(c.BatchWait),
			NormalBatchWait: time.Duration(c.NormalBatchWait),
			Concurrency:     concurrency,
			Rate:            float64(c.MaxRate),
			StreamRate:      streamRate,
			MultiRequest:    true,
		},
		unfinished: make(map[string]*batchState),
	}
	s.limits.Size = s.Size
	return s, nil
}

// Limits returns the limits of Loki. They have no timeout: each push has its own, and a Send may
// make several.
func (s *Sink) Limits() sink.Limits { return s.limits }

// Labels returns the fields of an Event and the attributes that are stream labels.
func (s *Sink) Labels() (fields event.LabelSet, attributes []string) {
	return s.labels.fields, s.labels.attributes
}

// AppendStream implements sink.Sink: a stream is named by its labels.
func (s *Sink) AppendStream(dst []byte, r *event.Record) []byte { return s.labels.Append(dst, r) }

// AppendRecord implements sink.Sink: it appends an entry of a push in protobuf.
func (s *Sink) AppendRecord(dst []byte, r *event.Record) []byte { return s.encoder.append(dst, r) }

// Size returns the bytes of a batch that Loki counts against its rate limits: lines and structured
// metadata.
func (s *Sink) Size(b *sink.Batch) (bytes int) {
	for i := range b.Len() {
		bytes += countedSize(b.Record(i))
	}
	return bytes
}

// Send pushes a batch, in one push unless a push fails. Entries that are stored when it returns an
// error are not sent again with the batch.
func (s *Sink) Send(ctx context.Context, b *sink.Batch) error {
	p := s.resume(b)
	p.grow(b.Len())
	pending := len(p.pending)
	if err := s.pushAll(ctx, b, p); err != nil {
		s.suspend(b, p)
		var sinkErr *sink.Error
		if errors.As(err, &sinkErr) && len(p.pending) < pending {
			progressed := *sinkErr
			progressed.Progress = true
			return &progressed
		}
		return err
	}
	if len(p.rejected) == 0 {
		return nil
	}
	s.deadLetters.write(b, p.rejected, p.statusCodes)
	return &sink.Error{
		Reason:    sink.ReasonRejected,
		Permanent: true,
		Rejected:  p.rejected,
		Err:       errors.New("the rest is stored; see the dead letters"),
	}
}

// resume returns the state of the unfinished batch of the stream if the batch begins with the same
// records, or else a new state.
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

// suspend keeps the state of a batch for the next Send of its stream.
func (s *Sink) suspend(b *sink.Batch, p *batchState) {
	p.checksum = checksum(b, p.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfinished[b.Stream] = p
}

var seed = maphash.MakeSeed()

// checksum returns the checksum of the first n records of a batch.
func checksum(b *sink.Batch, n int) uint64 {
	if n == 0 {
		return 0
	}
	return maphash.Bytes(seed, b.Data[:b.Ends[n-1]])
}

// DeadLetter implements sink.DeadLetterer.
func (s *Sink) DeadLetter(b *sink.Batch, reason string) {
	all := make([]sink.Rejection, b.Len())
	for i := range all {
		all[i] = sink.Rejection{Index: i, Reason: reason}
	}
	s.deadLetters.write(b, all, nil)
}

// pushBuffers are reused to encode pushes.
var pushBuffers = sync.Pool{New: func() any { return new(pushBuffer) }}

type pushBuffer struct{ request, compressed []byte }

// encode returns the body of a push. It is not from the pool, because the transport may still read
// it after an early response.
func encode(stream string, entries ...[]byte) []byte {
	buffer := pushBuffers.Get().(*pushBuffer)
	defer pushBuffers.Put(buffer)
	buffer.request = appendRequest(buffer.request[:0], stream, entries...)
	buffer.compressed = snappy.Encode(buffer.compressed[:cap(buffer.compressed)], buffer.request)
	return append([]byte(nil), buffer.compressed...)
}

// Close closes idle connections.
func (s *Sink) Close() error {
	s.client.close()
	return nil
}
