package fakeloki

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// push answers as Loki's distributor does. If it rejects single entries itself, the answer is 400
// although the rest is stored. The ingester's answer for the last stream of the push replaces the
// answers for the others.
func (s *Server) push(w http.ResponseWriter, r *http.Request) {
	streams, size, err := readPush(r)
	if err != nil {
		fail(w, http.StatusBadRequest, "%v", err)
		return
	}
	p := &Push{Request: r, Streams: streams}
	s.mu.Lock()
	s.pushes = append(s.pushes, p)
	script := s.script
	s.mu.Unlock()
	if script != nil {
		s.runScript(w, script, p)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(w http.ResponseWriter, status int, format string, args ...any) {
		p.Status = status
		fail(w, status, format, args...)
	}
	name, t := s.tenantOf(r)
	l := &s.options.Limits
	now := time.Now()
	if until := l.BlockIngestionUntil; now.Before(until) {
		fail(w, 260, "ingestion blocked for user '%s' until '%s' with status code '260'", name, until.Format(time.RFC3339))
		return
	}
	if len(streams) == 0 {
		p.Status = http.StatusNoContent
		w.WriteHeader(p.Status)
		return
	}

	var rejected []string // by the distributor
	lines, bytes := 0, 0
	var valid []Stream
	var labels []map[string]string
	for _, p := range streams {
		set, err := parseLabels(p.Labels)
		if err != nil { // and so none of the push is stored
			fail(w, http.StatusBadRequest, "%v", err)
			return
		}
		if err := checkLabels(set, l); err != nil {
			rejected = append(rejected, err.Error())
			continue
		}
		stored := Stream{Labels: selector(set)}
		for _, e := range p.Entries {
			for name := range e.Metadata {
				if strings.Trim(name, "_") == "" {
					fail(w, http.StatusInternalServerError, "label name is empty after its normalization: %q", name)
					return
				}
			}
			if err := checkEntry(stored.Labels, &e, l, now); err != nil {
				rejected = append(rejected, err.Error())
				continue
			}
			stored.Entries = append(stored.Entries, e)
			lines++
			bytes += e.size()
		}
		if len(stored.Entries) > 0 {
			valid, labels = append(valid, stored), append(labels, set)
		}
	}
	if lines > 0 && !t.limiter.AllowN(now, bytes) {
		fail(w, http.StatusTooManyRequests, "ingestion rate limit exceeded for user %s (limit: %d bytes/sec) while attempting to ingest '%d' lines totaling '%d' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased",
			name, l.IngestionRate, lines, bytes)
		return
	}
	if size > l.MaxMessageSize {
		fail(w, http.StatusInternalServerError, "rpc error: code = ResourceExhausted desc = trying to send message larger than max (%d vs. %d)", size, l.MaxMessageSize)
		return
	}

	status, body := 0, ""
	for i, p := range valid {
		status, body = s.ingest(name, t, labels[i], p, now) // the last one wins
	}
	if lines > 0 {
		s.notify()
	}
	switch {
	case status != 0:
		fail(w, status, "%s", body)
	case len(rejected) > 0:
		fail(w, http.StatusBadRequest, "%s", grouped(rejected))
	default:
		p.Status = http.StatusNoContent
		w.WriteHeader(p.Status)
	}
}

// ingest stores the entries of a stream that are not rejected, and returns the answer if some are.
func (s *Server) ingest(user string, t *tenant, labels map[string]string, p Stream, now time.Time) (status int, body string) {
	l := &s.options.Limits
	if t.streams[p.Labels] == nil && len(t.streams) >= l.MaxStreams {
		return http.StatusTooManyRequests, fmt.Sprintf("maximum active stream limit exceeded when trying to create stream %s, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: '%s'", p.Labels, user)
	}
	st := t.stream(labels, l)
	type rejection struct {
		at     time.Time
		reason string
	}
	var rejections []rejection
	var fits []Entry
	newest, bytes := st.newest, 0
	for _, e := range p.Entries {
		// Loki keeps a chunk open for two hours, and accepts entries that are older than the
		// newest one by up to half of that.
		if cutoff := newest.Add(-time.Hour); !newest.IsZero() && e.Time.Before(cutoff) {
			rejections = append(rejections, rejection{e.Time, fmt.Sprintf("entry too far behind, entry timestamp is: %s, oldest acceptable timestamp is: %s",
				e.Time.Format(time.RFC3339), cutoff.Format(time.RFC3339))})
			status = http.StatusBadRequest
			continue
		}
		if e.Time.After(newest) {
			newest = e.Time
		}
		bytes += e.size()
		fits = append(fits, e)
	}
	if len(fits) > 0 && !st.limiter.AllowN(now, bytes) {
		for _, e := range fits {
			rejections = append(rejections, rejection{e.Time, fmt.Sprintf("Per stream rate limit exceeded (limit: %dB/sec) while attempting to ingest for stream '%s' totaling %dB, consider splitting a stream via additional labels or contact your Loki administrator to see if the limit can be increased",
				l.PerStreamRate, p.Labels, e.size())})
		}
		status, fits = http.StatusTooManyRequests, nil
	}
	for _, e := range fits {
		e.Labels = labels
		if e.Time.After(st.newest) {
			st.newest = e.Time
		}
		same := func(o Entry) bool {
			return o.Time.Equal(e.Time) && o.Line == e.Line && maps.Equal(o.Metadata, e.Metadata)
		}
		if !slices.ContainsFunc(st.entries, same) {
			st.entries = append(st.entries, e)
		}
	}
	if len(rejections) == 0 {
		return 0, ""
	}
	var b strings.Builder
	each, all := "", fmt.Sprintf("user '%s', total ignored: %d out of %d for stream: %s", user, len(rejections), len(p.Entries), p.Labels)
	if s.options.Before3 {
		each, all = " for stream: "+p.Labels, fmt.Sprintf("total ignored: %d out of %d", len(rejections), len(p.Entries))
	}
	for _, r := range rejections[:min(len(rejections), 10)] {
		fmt.Fprintf(&b, "entry with timestamp %s ignored, reason: '%s'%s,\n", r.at, r.reason, each)
	}
	return status, b.String() + all
}

func (e *Entry) size() int {
	n := len(e.Line)
	for name, value := range e.Metadata {
		n += len(name) + len(value)
	}
	return n
}

// parseLabels returns the labels of a stream, with the service_name that Loki adds.
func parseLabels(text string) (map[string]string, error) {
	set := map[string]string{}
	if strings.TrimSpace(strings.Trim(text, "{}")) != "" {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text)
		if err != nil {
			return nil, fmt.Errorf("error parsing labels '%s' with error: %w", text, err)
		}
		for _, m := range matchers {
			set[m.Name] = m.Value
		}
	}
	if set["service_name"] == "" {
		set["service_name"] = "unknown_service"
		for _, name := range discoveredFrom {
			if set[name] != "" {
				set["service_name"] = set[name]
				break
			}
		}
	}
	return set, nil
}

// discoveredFrom are labels from which Loki derives a missing service_name, in order of precedence.
// Loki's own list is longer.
var discoveredFrom = []string{"service", "app", "application", "name", "container", "component", "workload", "job"}

func checkLabels(set map[string]string, l *Limits) error {
	n := len(set)
	if _, ok := set["service_name"]; ok {
		n--
	}
	if n > l.MaxLabelNames {
		return fmt.Errorf("entry for stream '%s' has %d label names; limit %d", selector(set), n, l.MaxLabelNames)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		switch value := set[name]; {
		case len(name) > 1024:
			return fmt.Errorf("stream '%s' has label name too long: '%s'", selector(set), name)
		case len(value) > 2048:
			return fmt.Errorf("stream '%s' has label value too long: '%s'", selector(set), value)
		}
	}
	return nil
}

func checkEntry(stream string, e *Entry, l *Limits, now time.Time) error {
	at := e.Time.Format(time.RFC3339)
	size := e.size() - len(e.Line)
	switch oldest := now.Add(-l.RejectOldSamplesMaxAge); {
	case e.Time.Before(oldest):
		return fmt.Errorf("entry for stream '%s' has timestamp too old: %s, oldest acceptable timestamp is: %s", stream, at, oldest.Format(time.RFC3339))
	case e.Time.After(now.Add(l.CreationGracePeriod)):
		return fmt.Errorf("entry for stream '%s' has timestamp too new: %s", stream, at)
	case len(e.Line) > l.MaxLineSize:
		return fmt.Errorf("max entry size '%d' bytes exceeded for stream '%s' while adding an entry with length '%d' bytes", l.MaxLineSize, stream, len(e.Line))
	case len(e.Metadata) == 0:
		return nil
	case l.DisallowStructuredMetadata:
		return fmt.Errorf("stream '%s' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it", stream)
	case size > l.MaxStructuredMetadataSize:
		return fmt.Errorf("stream '%s' has structured metadata too large: '%d' bytes, limit: '%d' bytes. Please see `limits_config.max_structured_metadata_size` or contact your Loki administrator to increase it", stream, size, l.MaxStructuredMetadataSize)
	case len(e.Metadata) > l.MaxStructuredMetadataEntries:
		return fmt.Errorf("stream '%s' has too many structured metadata labels: '%d', limit: '%d'. Please see `limits_config.max_structured_metadata_entries_count` or contact your Loki administrator to increase it", stream, len(e.Metadata), l.MaxStructuredMetadataEntries)
	}
	return nil
}

// grouped joins messages as Loki does: a single message as it is, else each different one once,
// with its number.
func grouped(messages []string) string {
	count := map[string]int{}
	for _, m := range messages {
		count[m]++
	}
	var parts []string
	for m, n := range count { // in any order, as Loki does
		if len(count) > 1 || n > 1 {
			m = fmt.Sprintf("%d errors like: %s", n, m)
		}
		parts = append(parts, m)
	}
	return strings.Join(parts, "; ")
}
