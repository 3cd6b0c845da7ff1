package input

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// wraps are the wrappings of a line, outermost first. They distinguish the lines of
// different containers and streams.
type wraps []string

// Kinds of wrapping. The name of the stream follows the first three.
const (
	wrapCRI       = "cri:"    // TIME stdout F LINE, of container runtimes
	wrapDocker    = "docker:" // {"log":"LINE\n","stream":"stdout","time":…}, of Docker
	wrapPrefix    = "prefix:" // [pod/NAME/CONTAINER] LINE, of kubectl logs --prefix
	wrapTimestamp = "time"    // TIME LINE, of kubectl logs --timestamps
	wrapKlog      = "klog"    // I1129 02:00:01.123456       1 file.go:42] LINE
	wrapSyslog    = "syslog:" // Nov 29 02:00:01 node-1 hindsight[1]: LINE, of journalctl and syslog
)

var podPrefix = lazyregexp.New(`^\[[a-z]+/[^\s\]/]+/[^\s\]/]+\] `)

// syslogHeader is the header of journalctl's formats short*, of syslog (RFC 3164) or of
// RFC 5424. The groups are host and program.
var syslogHeader = lazyregexp.New(`^(?:<\d{1,3}>)?(?:` +
	`(?:\w{3} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)) (\S+) ([^\s:\[/"]+(?:\[\d+\])?): ` +
	`|1 \d{4}-\d\d-\d\dT\S+ (\S+) (\S+ \S+) \S+ (?:-|(?:\[(?:[^"\]]|"(?:[^"\\]|\\.)*")*\])+) )`)

// cutSyslog removes a syslog header.
func cutSyslog(text []byte) (inner []byte, how string) {
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' { // mostly text lines of Hindsight: KIND/NAME is before their first colon
		before, _, ok := bytes.Cut(text, []byte(": "))
		if !ok || bytes.IndexByte(before, '/') >= 0 {
			return nil, ""
		}
	}
	m := syslogHeader().FindSubmatch(text)
	if m == nil {
		return nil, ""
	}
	return text[len(m[0]):], wrapSyslog + string(bytes.Join(m[1:], []byte(" ")))
}

// unwrap removes one wrapping from a line and returns its kind. It returns nil for a line
// that is not wrapped. part is set if the next line continues this one.
func unwrap(text []byte) (inner []byte, how string, part bool) {
	// Without an Event after it, the header belongs to a program's own log.
	if inner, how := cutSyslog(text); mayBeRecord(inner) {
		return inner, how, false
	}
	switch c := text[0]; {
	case c == '[':
		if m := podPrefix().Find(text); m != nil {
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
		// A text line of Hindsight begins with a time, too.
		_, _, twice := cutTime(rest)
		if twice || len(rest) > 0 && rest[0] == '{' || podPrefix().Match(rest) || klogHeader().Match(rest) || bytes.HasPrefix(rest, logfmtPrefix) {
			return rest, wrapTimestamp, false
		}
	case c == 'I' || c == 'W' || c == 'E' || c == 'F':
		// Without an object after it, the header belongs to a program's own log.
		if m := klogHeader().Find(text); m != nil && bytes.HasPrefix(text[len(m):], []byte("{")) {
			return text[len(m):], wrapKlog, false
		}
	}
	return nil, "", false
}

// mayBeRecord reports whether the text may be an object or a line of Hindsight.
func mayBeRecord(text []byte) bool {
	_, _, stamped := cutTime(text)
	return stamped || bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, logfmtPrefix) && mayBeHindsightLine(text)
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
		if !ok { // an editor removed the trailing space of an empty line
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

// strip removes these wrappings from a line. It returns false for a line with other
// wrappings.
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

// decodeUnwrapped decodes an unwrapped line once all its parts are complete.
func (d *Decoder) decodeUnwrapped(inner []byte, how string, part bool, at location) {
	at.wraps = append(slices.Clip(at.wraps), how)
	key := strings.Join(at.wraps, "\x00")
	if before, ok := d.parts[key]; part || ok {
		inner = append(before, inner...)
		if len(inner) > maxValue {
			d.problems.addDamaged(at.line, "a split line is longer than 16 MiB")
			inner = nil
		}
		if part {
			d.parts[key] = inner
			return
		}
		delete(d.parts, key)
	}
	d.decodeContent(inner, at)
}

// decodeDockerLine decodes an entry of Docker's json-file driver.
func (d *Decoder) decodeDockerLine(log, stream string, at location) {
	inner, part := dockerText(log)
	d.decodeUnwrapped(inner, wrapDocker+stream, part, at)
}

// dockerText returns the line in an entry of Docker. Without a line break, the next entry
// continues it. Lines of a terminal end in CRLF.
func dockerText(log string) (text []byte, part bool) {
	line, whole := strings.CutSuffix(log, "\n")
	if whole {
		line = strings.TrimSuffix(line, "\r")
	}
	return []byte(line), !whole
}

// embeddedObject returns the Event in a line with an unknown prefix, such as the name of a
// container.
func embeddedObject(text []byte) []byte {
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

var logfmtPrefix = []byte("time=")

// mayBeHindsightLine reports whether a line may be a line of Hindsight in logfmt or text.
func mayBeHindsightLine(text []byte) bool {
	return text[0] >= '0' && text[0] <= '9' ||
		bytes.HasPrefix(text, logfmtPrefix) && bytes.Contains(text, []byte(" detected_level="))
}
