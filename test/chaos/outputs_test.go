//go:build e2e

package chaos

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logfmt/logfmt"

	"github.com/hindsight-events/hindsight/test/cluster"
)

const gapReason = "HindsightGap"

var lineSeed = maphash.MakeSeed()

// delivered is a state in a sink.
type delivered struct {
	mark  string
	place string // the file, or the stream
	sum   uint64 // of the line
	times int    // how often it was written
}

// gap is a declared gap.
type gap struct {
	from, to uint64
	text     string
	place    string
}

// output is the content of a sink, from all replicas.
type output struct {
	name      string
	seen      map[key]*delivered
	gaps      map[key]gap
	repeats   int      // repeated lines
	counted   int      // repeats that checkRepeats has seen
	wrong     []string // errors found
	readError error    // of the last read

	read func(ctx context.Context, o *output, missing []*state) error // reads new content, at least the missing states
	next int                                                          // position in the ledger: all states before it were looked for
	open []*state                                                     // states before next that were not found
}

func newOutput(name string, read func(context.Context, *output, []*state) error) *output {
	return &output{name: name, seen: map[key]*delivered{}, gaps: map[key]gap{}, read: read}
}

// update reads new content and looks for all states of the ledger.
func (o *output) update(ctx context.Context, l *ledger) {
	all := l.all()
	o.open = o.look(ctx, append(o.open, all[o.next:]...))
	o.next = len(all)
}

// look looks for some states, and returns the missing ones. It may change the slice.
func (o *output) look(ctx context.Context, states []*state) []*state {
	o.readError = o.read(ctx, o, states)
	return slices.DeleteFunc(states, func(s *state) bool { return o.seen[s.key] != nil })
}

// missingOf returns the states that were not seen so far.
func (o *output) missingOf(states []*state) []*state {
	return slices.DeleteFunc(slices.Clone(states), func(s *state) bool { return o.seen[s.key] != nil })
}

// add records a state of the sink.
func (o *output) add(k key, d delivered) {
	before := o.seen[k]
	if before == nil {
		d.times = 1
		o.seen[k] = &d
		return
	}
	before.times++
	o.repeats++
	if before.sum != d.sum {
		o.wrong = append(o.wrong, fmt.Sprintf("%s (%s) in %s was repeated with other bytes in %s", k, d.mark, before.place, d.place))
	}
}

// declared records a gap.
func (o *output) declared(k key, from, to, text, place string) error {
	f, fromErr := strconv.ParseUint(from, 10, 64)
	t, toErr := strconv.ParseUint(to, 10, 64)
	if fromErr != nil || toErr != nil {
		return fmt.Errorf("a gap from version %q to %q", from, to)
	}
	o.gaps[k] = gap{from: f, to: t, text: text, place: place}
	return nil
}

// lines reads files of eventrouter lines that only grow.
type lines struct {
	patterns []string
	offsets  map[string]int64 // of the lines read so far
}

func newLines(patterns ...string) *lines {
	return &lines{patterns: patterns, offsets: map[string]int64{}}
}

func (l *lines) read(_ context.Context, o *output, _ []*state) error {
	for _, pattern := range l.patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := l.readFile(o, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFile reads complete lines: a last line without an end is not acknowledged, and
// may be truncated or completed.
func (l *lines) readFile(o *output, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, l.offsets[path], 1<<40))
	if err != nil {
		return err
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	l.offsets[path] += int64(len(text))
	place := filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
	for line := range bytes.Lines(text) {
		if err := o.addLine(line, place); err != nil {
			o.wrong = append(o.wrong, fmt.Sprintf("a line of %s: %v: %.300q", path, err, line))
		}
	}
	return nil
}

// addLine records a line of the format eventrouter.
func (o *output) addLine(line []byte, place string) error {
	var l struct {
		Event struct {
			Metadata struct {
				UID             string
				ResourceVersion string
				Annotations     map[string]string
			}
			Reason, Message string
		}
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	k, err := parseKey(l.Event.Metadata.UID, l.Event.Metadata.ResourceVersion)
	if err != nil {
		return err
	}
	if l.Event.Reason == gapReason {
		notes := l.Event.Metadata.Annotations
		return o.declared(k, notes["hindsight/from_version"], notes["hindsight/to_version"], l.Event.Message, place)
	}
	o.add(k, delivered{mark: markPattern.FindString(l.Event.Message), place: place, sum: maphash.Bytes(lineSeed, line)})
	return nil
}

func parseKey(uid, version string) (key, error) {
	v, err := strconv.ParseUint(version, 10, 64)
	if err != nil || uid == "" {
		return key{}, fmt.Errorf("uid %q, version %q", uid, version)
	}
	return key{uid, v}, nil
}

// stored reads a store.
type stored struct {
	cluster.Store
	output *output
}

func newStored(store cluster.Store) stored {
	s := stored{Store: store, output: newOutput(strings.ToLower(store.Name()), nil)}
	s.output.read = s.read
	return s
}

const (
	allStored  = `{job="hindsight"}`
	storedStep = 2 * time.Second // range of one query: some hundred entries
)

// read queries the seconds from which states are missing, and gaps.
func (s stored) read(ctx context.Context, o *output, missing []*state) error {
	if len(missing) == 0 {
		return nil
	}
	from, to := missing[0].at, missing[0].at
	for _, m := range missing {
		if m.at.Before(from) {
			from = m.at
		}
		if m.at.After(to) {
			to = m.at
		}
	}
	wanted := map[key]bool{}
	for _, m := range missing {
		wanted[m.key] = true
	}
	err := s.each(ctx, allStored, from, to.Add(time.Second), func(k key, e cluster.LokiEntry) {
		if wanted[k] {
			o.seen[k] = storedDelivered(e)
		}
	})
	if err != nil {
		return err
	}
	now := time.Now()
	entries, err := s.Answer(ctx, fmt.Sprintf(`{job="hindsight", reason=%q}`, gapReason), now.Add(-time.Hour), now.Add(time.Minute))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := o.addStoredGap(e); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads the whole store again, and records duplicates.
func (s stored) readAll(ctx context.Context, from, to time.Time) error {
	o := s.output
	o.seen, o.gaps = map[key]*delivered{}, map[key]gap{}
	places := map[key]string{}
	var failed error
	err := s.each(ctx, allStored, from, to, func(k key, e cluster.LokiEntry) {
		d := storedDelivered(e)
		if before, twice := places[k]; twice {
			o.wrong = append(o.wrong, fmt.Sprintf("%s is visible twice, in %s and in %s: %v %s", k, before, d.place, e.Metadata, e.Line))
		}
		places[k] = d.place
		if e.Labels["reason"] == gapReason {
			failed = cmp.Or(failed, o.addStoredGap(e))
		} else {
			o.seen[k] = d
		}
	})
	return cmp.Or(err, failed)
}

// each queries a range in steps.
func (s stored) each(ctx context.Context, selector string, from, to time.Time, do func(key, cluster.LokiEntry)) error {
	for ; from.Before(to); from = from.Add(storedStep) {
		until := from.Add(storedStep)
		if until.After(to) {
			until = to
		}
		entries, err := s.Answer(ctx, selector, from, until)
		if err != nil {
			return err
		}
		for _, e := range entries {
			k, err := parseKey(e.Metadata["event_uid"], e.Metadata["event_version"])
			if err != nil {
				return fmt.Errorf("an entry of %s: %w: %s", s.Name(), err, e.Line)
			}
			do(k, e)
		}
	}
	return nil
}

func storedDelivered(e cluster.LokiEntry) *delivered {
	return &delivered{
		mark:  markPattern.FindString(e.Line),
		place: fmt.Sprintf("{namespace=%q, reason=%q} at %s", e.Labels["namespace"], e.Labels["reason"], e.Time.Format("15:04:05.000000000")),
		times: 1,
	}
}

// addStoredGap records a gap from its line in logfmt.
func (o *output) addStoredGap(e cluster.LokiEntry) error {
	k, err := parseKey(e.Metadata["event_uid"], e.Metadata["event_version"])
	if err != nil {
		return fmt.Errorf("a gap: %w: %s", err, e.Line)
	}
	values := map[string]string{}
	dec := logfmt.NewDecoder(strings.NewReader(e.Line))
	for dec.ScanRecord() {
		for dec.ScanKeyval() {
			values[string(dec.Key())] = string(dec.Value())
		}
	}
	if err := dec.Err(); err != nil {
		return fmt.Errorf("a gap: %w: %s", err, e.Line)
	}
	return o.declared(k, values["from_version"], values["to_version"], values["msg"], storedDelivered(e).place)
}
