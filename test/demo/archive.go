package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/test/cluster"
)

// entry is a stored state of an Event.
type entry struct {
	at                time.Time
	state             state  // of which Event
	namespace, reason string // of the Event
	name, uid         string // of the object that it is about
	message           string
}

// question is a query of the archive, in LogQL and as arguments of hindsight query.
type question struct {
	logQL string
	args  []string
}

// archive is the destination of the export.
type archive interface {
	// name is the column heading of the archive.
	name() string
	// sink is the configuration of the sink, without its name.
	sink() string
	// find returns all states that answer a question, the oldest first.
	find(ctx context.Context, q question) ([]entry, error)
	// command is the question as a command line.
	command(q question) string
	// browse is a command that shows some of the outage.
	browse() string
}

// files are the files of a file sink, read with hindsight query.
type files struct {
	binary string // hindsight
	path   string
}

func (f *files) name() string { return "files" }
func (f *files) sink() string { return fmt.Sprintf("file: {path: %q}", f.path) }

func (f *files) command(q question) string {
	words := []string{"$ hindsight query --file events.jsonl"}
	for _, arg := range q.args {
		if strings.ContainsAny(arg, ` {}"`) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

func (f *files) browse() string {
	return fmt.Sprintf("%s query --file %s %s --limit 100", f.binary, f.path, strings.Join(first.args, " "))
}

func (f *files) find(ctx context.Context, q question) ([]entry, error) {
	args := append([]string{"query", "--file", f.path, "--states", "--since", "1h", "-o", "json"}, q.args...)
	cmd := exec.CommandContext(ctx, f.binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("hindsight %q: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	var found []entry
	for dec := json.NewDecoder(&stdout); ; {
		var e corev1.Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("hindsight %q: decode an Event: %w", args, err)
		}
		found = append(found, entryOfEvent(&e))
	}
}

func entryOfEvent(e *corev1.Event) entry {
	r := event.NewReplayed(e)
	return entry{
		at: r.Time.UTC(), state: state{string(e.UID), e.ResourceVersion},
		namespace: e.Namespace, reason: e.Reason,
		name: e.InvolvedObject.Name, uid: string(e.InvolvedObject.UID), message: e.Message,
	}
}

// loki is a Loki, queried with LogQL.
type loki struct {
	*cluster.Loki
	binary string    // hindsight
	from   time.Time // before the first Event
}

func (l *loki) name() string { return "LogQL" }
func (l *loki) sink() string { return fmt.Sprintf("loki: {url: %q, batch_wait: 500ms}", l.URL()) }

func (l *loki) command(q question) string { return "logql> " + q.logQL }

func (l *loki) browse() string {
	return fmt.Sprintf("%s query --loki-url %s %s --limit 100", l.binary, l.URL(), strings.Join(first.args, " "))
}

func (l *loki) find(ctx context.Context, q question) ([]entry, error) {
	entries, err := l.Entries(ctx, q.logQL, l.from.Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	found := make([]entry, len(entries))
	for i, e := range entries {
		found[i] = entryOfLoki(e)
	}
	return found, nil
}

func entryOfLoki(e cluster.LokiEntry) entry {
	return entry{
		at: e.Time.UTC(), state: state{e.Metadata["event_uid"], e.Metadata["event_version"]},
		namespace: e.Labels["namespace"], reason: e.Labels["reason"],
		name: e.Metadata["name"], uid: e.Metadata["uid"], message: messageOf(e.Line),
	}
}

var message = regexp.MustCompile(` msg=("(?:[^"\\]|\\.)*"|\S+)`)

// messageOf is the Event's message, as a logfmt line has it.
func messageOf(line string) string {
	match := message.FindStringSubmatch(line)
	if match == nil {
		return ""
	}
	if text, err := strconv.Unquote(match[1]); err == nil {
		return text
	}
	return match[1]
}
