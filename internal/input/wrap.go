package input

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// wraps are the ways in which a line was wrapped into others, outermost first.
// They distinguish the lines of different containers and streams.
type wraps []string

// Ways of wrapping. The name of the stream follows the first three.
const (
	wrapCRI       = "cri:"    // TIME stdout F LINE, as container runtimes keep it
	wrapDocker    = "docker:" // {"log":"LINE\n","stream":"stdout","time":…}, as Docker keeps it
	wrapPrefix    = "prefix:" // [pod/NAME/CONTAINER] LINE, as kubectl logs --prefix prints it
	wrapTimestamp = "time"    // TIME LINE, as kubectl logs --timestamps prints it
	wrapKlog      = "klog"    // I1129 02:00:01.123456       1 file.go:42] LINE
	wrapSyslog    = "syslog:" // Nov 29 02:00:01 node-1 hindsight[1]: LINE, as journalctl and syslog print it
)

var podPrefix = regexp.MustCompile(`^\[[a-z]+/[^\s\]/]+/[^\s\]/]+\] `)

// syslogHeader begins a line of journalctl in its formats short*, of syslog (RFC 3164)
// or, with a version, of RFC 5424. The groups tell sources apart: host and program.
var syslogHeader = regexp.MustCompile(`^(?:<\d{1,3}>)?(?:` +
	`(?:\w{3} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)) (\S+) ([^\s:\[/"]+(?:\[\d+\])?): ` +
	`|1 \d{4}-\d\d-\d\dT\S+ (\S+) (\S+ \S+) \S+ (?:-|(?:\[(?:[^"\]]|"(?:[^"\\]|\\.)*")*\])+) )`)

// cutSyslog cuts a header of syslog off.
func cutSyslog(text []byte) (inner []byte, how string) {
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' { // mostly lines of ours: KIND/NAME is before their first colon
		before, _, ok := bytes.Cut(text, []byte(": "))
		if !ok || bytes.IndexByte(before, '/') >= 0 {
			return nil, ""
		}
	}
	m := syslogHeader.FindSubmatch(text)
	if m == nil {
		return nil, ""
	}
	return text[len(m[0]):], wrapSyslog + string(bytes.Join(m[1:], []byte(" ")))
}

// unwrap removes one wrapping from a line and returns the way of wrapping. It returns
// nil for a line that is not wrapped. part is set if another line continues this one.
func unwrap(text []byte) (inner []byte, how string, part bool) {
	// Without an Event behind it, the header is that of a program's own logs.
	if inner, how := cutSyslog(text); beginsRecord(inner) {
		return inner, how, false
	}
	switch c := text[0]; {
	case c == '[':
		if m := podPrefix.Find(text); m != nil {
			return text[len(m):], wrapPrefix + string(m), false
		}
	case c >= '0' && c <= '9':
		_, rest, ok := cutTime(text)
		if !ok {
			return nil, "", false
		}
		if inner, stream, part, ok := cutCRI(rest); ok {
			return inner, wrapCRI + stream, part
		}
		// A line of ours in the format text begins with a time too.
		_, _, twice := cutTime(rest)
		if twice || len(rest) > 0 && rest[0] == '{' || podPrefix.Match(rest) || klogHeader.Match(rest) || bytes.HasPrefix(rest, logfmtStart) {
			return rest, wrapTimestamp, false
		}
	case c == 'I' || c == 'W' || c == 'E' || c == 'F':
		// Without an object after it, the header belongs to a program's own log.
		if m := klogHeader.Find(text); m != nil && bytes.HasPrefix(text[len(m):], []byte("{")) {
			return text[len(m):], wrapKlog, false
		}
	}
	return nil, "", false
}

// beginsRecord reports whether an object, or a line of ours, may begin the text.
func beginsRecord(text []byte) bool {
	_, _, stamped := cutTime(text)
	return stamped || bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, logfmtStart) && isOurs(text)
}

// cutTime removes a time and the space after it.
func cutTime(text []byte) (stamp, rest []byte, ok bool) {
	stamp, rest, ok = bytes.Cut(text, []byte(" "))
	if !ok || len(stamp) < len("2006-01-02T15:04:05Z") || len(stamp) > len("2006-01-02T15:04:05.000000000+00:00") {
		return nil, nil, false
	}
	_, err := time.Parse(time.RFC3339Nano, string(stamp))
	return stamp, rest, err == nil
}

// cutCRI reads the fields that a container runtime writes after the time:
// https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
func cutCRI(text []byte) (inner []byte, stream string, part, ok bool) {
	for _, stream := range []string{"stdout", "stderr"} {
		rest, found := bytes.CutPrefix(text, []byte(stream+" "))
		if !found {
			continue
		}
		tags, inner, ok := bytes.Cut(rest, []byte(" "))
		if !ok { // an editor has removed the space at the end of an empty line
			inner = []byte{}
		}
		tag, _, _ := bytes.Cut(tags, []byte(":"))
		switch string(tag) {
		case "F":
			return inner, stream, false, true
		case "P":
			return inner, stream, true, true
		}
	}
	return nil, "", false, false
}

// strip removes these wrappings from a line. It returns false for a line that is
// wrapped in another way.
func (w wraps) strip(text []byte) (inner []byte, part, ok bool) {
	for _, how := range w {
		if len(text) == 0 {
			return nil, false, false
		}
		switch {
		case how == wrapTimestamp:
			if _, text, ok = cutTime(text); !ok {
				return nil, false, false
			}
		case strings.HasPrefix(how, wrapDocker):
			var e envelope
			if json.Unmarshal(text, &e) != nil || e.Log == nil || e.Stream == nil || how != wrapDocker+string(*e.Stream) {
				return nil, false, false
			}
			text, part = dockerText(string(*e.Log))
		case strings.HasPrefix(how, wrapSyslog):
			inner, was := cutSyslog(text)
			if was != how {
				return nil, false, false
			}
			text = inner
		default:
			inner, was, p := unwrap(text)
			if was != how {
				return nil, false, false
			}
			text, part = inner, part || p
		}
	}
	return text, part, true
}

// unwrapped reads a line that was wrapped into another, once it is complete.
func (d *Decoder) unwrapped(inner []byte, how string, part bool, at place) {
	at.wraps = append(slices.Clip(at.wraps), how)
	key := strings.Join(at.wraps, "\x00")
	if before, ok := d.parts[key]; part || ok {
		inner = append(before, inner...)
		if len(inner) > maxValue {
			d.problems.addDamaged(at.line, "a line that was split is longer than 16 MiB")
			inner = nil
		}
		if part {
			d.parts[key] = inner
			return
		}
		delete(d.parts, key)
	}
	d.content(inner, at)
}

// dockerLine reads an entry of Docker's json-file driver.
func (d *Decoder) dockerLine(log, stream string, at place) {
	inner, part := dockerText(log)
	d.unwrapped(inner, wrapDocker+stream, part, at)
}

// dockerText returns the line in an entry of Docker's. Without its end, the rest
// follows in another. That of a terminal ends in CRLF.
func dockerText(log string) (text []byte, part bool) {
	line, whole := strings.CutSuffix(log, "\n")
	if whole {
		line = strings.TrimSuffix(line, "\r")
	}
	return []byte(line), !whole
}

// embedded returns the Event in a line that begins with something else, such as
// the name of a container or a header of syslog.
func embedded(text []byte) []byte {
	if !bytes.Contains(text, []byte(`"involvedObject"`)) && !bytes.Contains(text, []byte(`"regarding"`)) {
		return nil
	}
	text = bytes.TrimRight(text, " \t")
	for range 3 {
		i := bytes.Index(text, []byte(`{"`))
		if i < 0 {
			return nil
		}
		if text = text[i:]; json.Valid(text) {
			return text
		}
		text = text[1:]
	}
	return nil
}

var logfmtStart = []byte("time=")

// isOurs reports whether a line may be one of ours in the format logfmt or text.
func isOurs(text []byte) bool {
	return text[0] >= '0' && text[0] <= '9' ||
		bytes.HasPrefix(text, logfmtStart) && bytes.Contains(text, []byte(" detected_level="))
}
