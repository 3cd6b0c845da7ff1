package input_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/internal/input"
)

// read returns the messages of all Events and the problems of an input. It writes the
// text in pieces of the given size.
func read(t testing.TB, in string, piece int) (messages, problems []string) {
	t.Helper()
	text, err := input.TextReader(strings.NewReader(in))
	var foreign *input.UnsupportedError
	if errors.As(err, &foreign) {
		return nil, []string{foreign.Error()}
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(text)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, all, piece)
}

func decode(t testing.TB, text []byte, piece int) (messages, problems []string) {
	t.Helper()
	d := input.NewDecoder(func(e format.Entry) error {
		messages = append(messages, e.Record.Event.Message)
		return nil
	})
	for part := range slices.Chunk(text, piece) {
		if _, err := d.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !d.AtBoundary() {
		t.Error("not at a boundary after Close")
	}
	for _, p := range d.Problems() {
		problems = append(problems, p.String())
	}
	return messages, problems
}

const (
	one = `{"apiVersion":"v1","kind":"Event","metadata":{"name":"a"},"message":"one"}`
	two = `{"apiVersion":"v1","kind":"Event","metadata":{"name":"b"},"message":"two"}`

	bare1 = `{"metadata":{"name":"a"},"involvedObject":{"kind":"Pod","name":"x"},"message":"one"}`
	bare2 = `{"metadata":{"name":"b"},"involvedObject":{},"message":"two"}`
	newer = `{"metadata":{"name":"b"},"regarding":{"kind":"Pod","name":"x"},"note":"two","eventTime":"2026-11-28T10:00:00.123456Z"}`

	router1 = `{"verb":"ADDED","event":{"metadata":{"name":"a"},"involvedObject":{},"message":"one"}}`
	router2 = `{"verb":"UPDATED","event":{"metadata":{"name":"b"},"involvedObject":{},"message":"two"},"old_event":{"metadata":{"name":"b"},"message":"before"}}`

	pretty1 = "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Event\",\n    \"metadata\": {\n        \"name\": \"a\"\n    },\n    \"message\": \"one\"\n}"
	pretty2 = "{\n    \"apiVersion\": \"v1\",\n    \"kind\": \"Event\",\n    \"metadata\": {\n        \"name\": \"b\"\n    },\n    \"message\": \"two\"\n}"

	pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-0"}}`

	logfmtTwo = "time=2026-11-29T02:00:00Z namespace=shop name=web-0 kind=Pod reason=Killing msg=two detected_level=info"

	stamp = "2026-11-29T02:00:00.123456789Z "
	klog  = "I1129 02:00:01.123456       1 glogsink.go:42] "
)

func docker(s string) string {
	return fmt.Sprintf(`{"log":%q,"stream":"stdout","time":"2026-11-29T02:00:01.1Z"}`+"\n", s)
}

func toUTF16(s string, big bool) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return string(b)
}

func packed(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

var (
	both    = []string{"one", "two"}
	justOne = []string{"one"}
	justTwo = []string{"two"}
)

var inputs = map[string]struct {
	input    string
	messages []string
	problems []string
}{
	// Lists.
	"a list on one line":                  {`{"kind":"List","items":[` + one + "," + two + `]}`, both, nil},
	"a list as kubectl prints it":         {"{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n        " + one + ",\n        " + two + "\n    ],\n    \"kind\": \"List\"\n}\n", both, nil},
	"a list with items in column one":     {"{\"kind\": \"List\", \"items\": [\n" + one + ",\n" + two + "\n]}\n", both, nil},
	"a list without indentation":          {strings.ReplaceAll(strings.ReplaceAll("{\n\"apiVersion\": \"v1\",\n\"items\": [\n"+pretty1+",\n"+pretty2+"\n],\n\"kind\": \"List\"\n}\n", "\n    ", "\n"), "\n    ", "\n"), both, nil},
	"a list of an API server":             {`{"kind":"EventList","apiVersion":"v1","metadata":{},"items":[` + bare1 + "," + bare2 + `]}`, both, nil},
	"a list of events.k8s.io":             {`{"kind":"EventList","apiVersion":"events.k8s.io/v1","metadata":{},"items":[` + newer + `]}`, justTwo, nil},
	"a list of events.k8s.io/v1beta1":     {`{"kind":"EventList","apiVersion":"events.k8s.io/v1beta1","items":[` + newer + `]}`, justTwo, nil},
	"a list with sorted keys":             {"{\n\"apiVersion\":\"v1\",\n \"items\":[\n " + bare1 + ",\n " + newer + "],\n \"kind\":\"EventList\"}", both, nil},
	"items of the beta version":           {`{"kind":"List","items":[{"kind":"Event","apiVersion":"events.k8s.io/v1beta1",` + newer[1:] + `]}`, justTwo, nil},
	"jq .items[] of an empty list":        {"null\n", nil, nil},
	"an empty list":                       {`{"kind":"EventList","items":[]}`, nil, nil},
	"a list of null":                      {`{"kind":"EventList","apiVersion":"v1","metadata":{},"items":null}`, nil, nil},
	"a list of null, in lines":            {"{\n  \"kind\": \"EventList\",\n  \"items\": null\n}\n", nil, nil},
	"a list with other objects":           {"\n" + `{"kind":"List","items":[` + one + `,{"kind":"Pod","metadata":{"name":"web-0"}},` + two + `]}`, both, []string{"line 2: not an Event, but Pod"}},
	"a list with other objects, in lines": {"{\"kind\":\"List\",\"items\":[\n " + one + ",\n " + pod + ",\n " + pod + ",\n " + two + "]}", both, []string{"line 3: not Events, but Pod (2)"}},
	"a list of other objects":             {`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`, nil, []string{"line 1: not an Event, but PodList"}},
	"a list of other objects, kind last":  {"{\n \"apiVersion\":\"v1\",\n \"items\":[\n {\"metadata\":{\"name\":\"a\"}},\n {\"metadata\":{}}],\n \"kind\":\"PodList\"}", nil, []string{"line 1: not an Event, but PodList"}},
	"an empty list of other objects":      {`{"kind":"PodList","apiVersion":"v1","items":[]}`, nil, []string{"line 1: not an Event, but PodList"}},
	"Events of another group":             {`{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","metadata":{"name":"x"}}` + "\n" + one, justOne, []string{"line 1: not an Event, but Event of audit.k8s.io/v1"}},
	"a list of Events of another group":   {`{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{"level":"Metadata"},{"level":"Metadata"}]}`, nil, []string{"line 1: not an Event, but EventList of audit.k8s.io/v1"}},
	"items that are unknown":              {"{\"items\":[\n{\"a\":1},\n{\"a\":2}]}", nil, []string{"line 2: not an Event: it has no kind (and 1 more)"}},
	"kubectl cluster-info dump":           {"{\"kind\":\"NodeList\",\"apiVersion\":\"v1\",\"items\":[\n{\"metadata\":{}}]}\n{\"kind\":\"EventList\",\"apiVersion\":\"v1\",\"items\":[\n" + bare1 + "]}\n{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":null}\n==== START logs for container a ====\nstarted\n==== END logs\n", justOne, []string{"line 1: not Events, but NodeList, PodList", "line 6: looks like text: \"==== START logs for container a ====\" (and 2 more)"}},

	// Arrays and sequences.
	"an array":                  {"[\n  " + one + ",\n  " + two + "\n]\n", both, nil},
	"an array on one line":      {"[" + one + "," + two + "]", both, nil},
	"an array of lists":         {`[{"kind":"List","items":[` + one + `]},{"kind":"EventList","apiVersion":"v1","items":[` + bare2 + `]}]`, both, nil},
	"an array of arrays":        {"[[" + one + "],[],[" + two + "]]", both, nil},
	"an empty array":            {"[]\n", nil, nil},
	"an array of others":        {`[1,"a",{"kind":"Pod","apiVersion":"v1"}]`, nil, []string{"line 1: not Events, but Pod, values in an array"}},
	"arrays in a row":           {"[" + one + "][" + two + "]", both, nil},
	"objects on one line":       {one + " " + two + "\n", both, nil},
	"objects without separator": {pretty1 + pretty2, both, nil},

	// YAML.
	"a YAML list":                    {"apiVersion: v1\nitems:\n- kind: Event\n  metadata: {name: a}\n  message: one\n- kind: Event\n  metadata: {name: b}\n  message: two\nkind: List\nmetadata:\n  resourceVersion: \"\"\n", both, nil},
	"a YAML list, indented":          {"apiVersion: v1\nkind: List\nitems:\n  - kind: Event\n    metadata: {name: a}\n    message: |\n      one\n  # comment\n  - {kind: Event, metadata: {name: b}, message: two}\n", []string{"one\n", "two"}, nil},
	"a YAML list of an API server":   {"apiVersion: v1\nkind: EventList\nitems:\n- involvedObject: {}\n  metadata:\n    name: a\n  message: one\n- message: two\n  metadata: {name: b}\n", both, nil},
	"an empty YAML list":             {"apiVersion: v1\nitems: []\nkind: List\n", nil, nil},
	"a YAML list of other objects":   {"apiVersion: v1\nkind: DeploymentList\nitems:\n- metadata: {name: a}\n", nil, []string{"line 1: not an Event, but DeploymentList"}},
	"a YAML sequence":                {"- apiVersion: v1\n  kind: Event\n  metadata: {name: a}\n  message: one\n- kind: Event\n  metadata: {name: b}\n  message: two\n", both, nil},
	"a YAML sequence in flow style":  {"- " + one + "\n- " + two + "\n", both, nil},
	"YAML documents":                 {"---\nkind: Event\nmetadata: {name: a}\nmessage: one\n---\nkind: Pod\nmetadata: {name: web-0}\n---\n# nothing\n---\nkind: Event\nmetadata: {name: b}\nmessage: two\n---\n", both, []string{"line 6: not an Event, but Pod"}},
	"YAML documents without markers": {"kind: Event\nmetadata: {name: a}\nmessage: one\nkind: Event\nmetadata: {name: b}\nmessage: two\n", both, nil},
	"YAML frames":                    {"object:\n  kind: Event\n  metadata: {name: a}\n  message: one\ntype: ADDED\n---\nobject:\n  kind: Event\n  metadata: {name: b}\n  message: two\ntype: DELETED\n", justOne, nil},
	"a malformed YAML document":      {"kind: Event\n  metadata: [\n---\nkind: Event\nmetadata: {name: b}\nmessage: two\n", justTwo, []string{"line 1: not Events in YAML: yaml: line 2: mapping values are not allowed in this context"}},
	"a malformed YAML item":          {"kind: List\nitems:\n- kind: Event\n  metadata: [\n- kind: Event\n  metadata: {name: b}\n  message: two\n", justTwo, []string{"line 3: not an Event in YAML: yaml: line 2: did not find expected node content"}},
	"YAML before JSON":               {"kind: Event\nmetadata: {name: a}\nmessage: one\n" + two + "\n", both, nil},
	"YAML with CRLF":                 {"kind: Event\r\nmetadata: {name: a}\r\nmessage: one\r\n", justOne, nil},

	// Watches.
	"a watch as kubectl prints it": {pretty1 + "\n" + pretty2 + "\n", both, nil},
	"frames":                       {`{"type":"ADDED","object":` + one + "}\n" + `{"type":"MODIFIED","object":` + two + "}\n", both, nil},
	"frames without states": {
		`{"type":"DELETED","object":` + one + "}\n" + `{"type":"BOOKMARK","object":{"kind":"Event","apiVersion":"v1","metadata":{"resourceVersion":"9"}}}` + "\n" + `{"type":"ADDED","object":` + two + "}\n",
		justTwo, nil,
	},
	"a watch that ended in an error": {
		`{"type":"ADDED","object":` + one + "}\n" + `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version: 1 (5)","reason":"Expired","code":410}}` + "\n",
		justOne,
		[]string{"line 2: the API server returned an error: too old resource version: 1 (5) (410 Expired)"},
	},
	"a Status": {
		`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"events is forbidden","reason":"Forbidden","code":403}`, nil,
		[]string{"line 1: the API server returned an error: events is forbidden (403 Forbidden)"},
	},
	"frames of other objects": {`{"type":"ADDED","object":` + pod + "}\n", nil, []string{"line 1: not an Event, but Pod"}},

	// Lines.
	"lines of eventrouter":                         {router1 + "\n" + router2, both, nil},
	"a line of logfmt":                             {"time=2026-11-29T02:00:00Z namespace=shop name=web-0 kind=Pod reason=Killing msg=one detected_level=info\n", justOne, nil},
	"a line of flat JSON":                          {`{"time":"2026-11-29T02:00:00Z","name":"web-0","kind":"Pod","msg":"one","detected_level":"info"}` + "\n", justOne, nil},
	"a line of text":                               {stamp + "shop Killing Pod/web-0: one\n", justOne, nil},
	"an Event without a kind":                      {bare1 + "\n", justOne, nil},
	"an object around the line":                    {`{"kubernetes_event": ` + router1 + "}\n", justOne, nil},
	"an object around the line, with other fields": {`{"kubernetes_event": ` + router1 + `,"time":"2026-11-29T02:00:00Z","kubernetes":{"labels":{}}}` + "\n", justOne, nil},
	"a line of a log collector":                    {fmt.Sprintf(`{"message":%q,"kubernetes":{"pod_name":"x"}}`+"\n"+`{"log":%q,"kubernetes":{}}`, router1, router2), both, nil},
	"eventrouter's glog lines":                     {klog + router1 + "\n" + klog + router2 + "\n", both, nil},
	"CRI log":                                      {stamp + "stdout F " + router1 + "\n" + stamp + "stderr F " + klog + "Starting\n" + stamp + "stdout F " + router2 + "\n", both, []string{`line 2: looks like logs of another program: "I1129 02:00:01.123456       1 glogsink.go:42] Starting"`}},
	"CRI log with split lines":                     {stamp + "stdout P " + router1[:10] + "\n" + stamp + "stderr P {\n" + stamp + "stdout P " + router1[10:20] + "\n" + stamp + "stdout F " + router1[20:] + "\n" + stamp + "stderr F }\n" + stamp + "stdout F " + router2 + "\n", both, []string{`line 5: looks like text: "{}"`}},
	"CRI log without the last part":                {stamp + "stdout F " + router1 + "\n" + stamp + "stdout P " + router2[:30] + "\n", justOne, []string{"line 2: not an Event in JSON: truncated in a string"}},
	"Docker log":                                   {docker(router1+"\n") + docker(router2+"\n"), both, nil},
	"Docker log with split lines":                  {docker(router1[:30]) + docker(router1[30:]+"\n") + docker(router2+"\n"), both, nil},
	"documents in a container's log":               {strings.ReplaceAll("\n"+pretty1, "\n", "\n"+stamp+"stdout F ")[1:] + "\n" + strings.Join([]string{docker("{\n"), docker(pretty2[2:] + "\n")}, ""), both, nil},
	"kubectl logs --prefix":                        {"[pod/a/b] " + router1 + "\n[pod/a/c] " + router2 + "\n", both, nil},
	"kubectl logs --timestamps":                    {stamp + router1 + "\n" + stamp + router2 + "\n", both, nil},
	"kubectl logs --prefix --timestamps, and glog": {"[pod/a/b] " + stamp + klog + router1 + "\n", justOne, nil},
	"documents with timestamps":                    {strings.ReplaceAll("\n"+pretty1, "\n", "\n[pod/a/b] "+stamp)[1:] + "\n", justOne, nil},
	"lines of text with timestamps":                {stamp + stamp + "shop Killing Pod/web-0: one\n" + stamp + "stdout F " + stamp + "shop Killing Pod/web-0: two\n", both, nil},
	"logfmt in a container's log":                  {stamp + "stdout F time=2026-11-29T02:00:00Z namespace=shop name=web-0 kind=Pod reason=Killing msg=one detected_level=info\n", justOne, nil},
	"lines with other prefixes":                    {"eventrouter-1  | " + router1 + "\nNov 29 02:00:01 host eventrouter[1]: " + router2 + "\n", both, nil},

	"a flat object about an Event":             {`{"time":"2026-11-29T02:00:00Z","name":"a","kind":"Event","objectAPIversion":"v1","msg":"one","detected_level":"info"}` + "\n", justOne, nil},
	"a flat object about a Status":             {`{"time":"2026-11-29T02:00:00Z","name":"a","kind":"Status","msg":"one","detected_level":"info"}` + "\n", justOne, nil},
	"the journal of systemd":                   {"-- Logs begin at Sun 2026-11-29 02:00:00 UTC. --\nNov 29 02:00:01 host hindsight[1]: " + stamp + "shop Killing Pod/web-0: one\nNov 29 02:00:01.123456 host hindsight[1]: " + logfmtTwo + "\n", both, []string{`line 1: looks like text: "-- Logs begin at Sun 2026-11-29 02:00:00 UTC. --"`}},
	"the journal of systemd with ISO times":    {"2026-11-29T02:00:01+0000 host hindsight[1]: " + stamp + "shop Killing Pod/web-0: one\n2026-11-29T02:00:01.123456+00:00 host hindsight[1]: " + logfmtTwo + "\n", both, nil},
	"syslog":                                   {"<14>Nov  9 02:00:01 host hindsight: " + stamp + "shop Killing Pod/web-0: one\n<14>1 2026-11-29T02:00:01.1Z host hindsight 1 - [a b=\"]\"] " + logfmtTwo + "\n", both, nil},
	"documents in the journal":                 {strings.ReplaceAll("\n"+pretty1, "\n", "\nNov 29 02:00:01 host kubectl[1]: ")[1:] + "\n", justOne, nil},
	"logs in the journal":                      {"Nov 29 02:00:01 host kubelet[1]: started\n", nil, []string{`line 1: looks like logs of another program: "Nov 29 02:00:01 host kubelet[1]: started"`}},
	"text that looks like syslog":              {stamp + "shop Pod/web-0: " + stamp + "one\n", []string{stamp + "one"}, nil},
	"an empty CRI line without trailing space": {stamp + "stdout P " + router1 + "\n" + stamp + "stdout F\n" + stamp + "stdout F\n" + stamp + "stdout F " + router2 + "\n", both, nil},

	"Docker's lines of a terminal":            {docker(stamp+"shop Killing Pod/web-0: one\r\n") + docker(logfmtTwo+"\r\n"), both, nil},
	"lines of Hindsight in a log collector's": {fmt.Sprintf(`{"message":%q}`+"\n"+`{"log":%q,"kubernetes":{}}`+"\n", stamp+"shop Killing Pod/web-0: one", logfmtTwo+"\n"), both, nil},
	"other lines in a log collector's":        {`{"message":"2026-11-29T02:00:00Z started"}` + "\n", nil, []string{`line 1: looks like logs of another program: "2026-11-29T02:00:00Z started"`}},

	// Encodings.
	"a byte order mark":                {"\ufeff" + one + "\n\ufeff" + two, both, nil},
	"a byte order mark before YAML":    {"\ufeffkind: Event\nmetadata: {name: a}\nmessage: one\n", justOne, nil},
	"UTF-16, little endian":            {"\xff\xfe" + toUTF16(pretty1+"\r\n"+two, false), both, nil},
	"UTF-16, big endian":               {"\xfe\xff" + toUTF16(pretty1+"\r\n"+two, true), both, nil},
	"UTF-16 without a byte order mark": {toUTF16(one, false), justOne, nil},
	"CRLF":                             {strings.ReplaceAll(pretty1, "\n", "\r\n") + "\r\n" + two + "\r\n", both, nil},
	"gzip":                             {packed(one + "\n" + two), both, nil},
	"gzip, in parts":                   {packed(one+"\n") + packed(two), both, nil},
	"gzip of gzip":                     {packed(packed(one)), justOne, nil},
	"gzip, three times":                {packed(packed(packed(one))), nil, []string{"looks like gzip of gzip of gzip, which is not supported"}},
	"binary data":                      {"\x01\x00\x02\x03\x04", nil, []string{"looks like binary data, which is not supported"}},
	"an indented object":               {"  " + strings.ReplaceAll(pretty1, "\n", "\n  ") + "\n  " + two + "\n", both, nil},
	"YAML times without quotes":        {"kind: Event\nmetadata: {name: a}\nmessage: one\nlastTimestamp: 2026-11-28T10:00:00Z\neventTime: 2026-11-28T10:00:00.123456Z\n", justOne, nil},
	"gzip of UTF-16":                   {packed("\xff\xfe" + toUTF16(one, false)), justOne, nil},

	// Truncated inputs.
	"a truncated line":                    {router1[:30] + "\n" + router2 + "\n", justTwo, []string{"line 1: not an Event in JSON: truncated in a string"}},
	"a truncated last line":               {router1 + "\n" + router2[:30], justOne, []string{"line 2: not an Event in JSON: truncated in a string"}},
	"a truncated object":                  {pretty1[:60] + "\n" + pretty2 + "\n", justTwo, []string{"line 1: not an Event in JSON: truncated in a string"}},
	"an object truncated at a line break": {pretty1[:strings.Index(pretty1, ",\n")+1] + "\n" + pretty2 + "\n", justTwo, []string{"line 1: not an Event in JSON: truncated where another begins"}},
	"a truncated list":                    {"{\"kind\":\"List\",\"items\":[\n " + one + ",\n " + two[:20], justOne, []string{"line 1: not an Event in JSON: truncated in a string"}},
	"brackets that do not match":          {"{\"kind\":\"List\",\"items\":[\n " + one + "}\n    ,\n    ],\n" + two, both, []string{"line 1: not an Event in JSON: mismatched brackets"}},
	"text lines after a truncated one":    {"{\"kind\":\n" + stamp + "shop Killing Pod/web-0: one\n", justOne, []string{"line 1: not an Event in JSON: truncated where another begins"}},
	"a malformed time":                    {`{"kind":"Event","metadata":{"name":"a"},"lastTimestamp":"yesterday"}`, nil, []string{`line 1: not an Event in JSON: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`}},
	"Events without names":                {strings.Repeat(`{"verb":"ADDED","event":{}}`+"\n", 3), nil, []string{"line 1: not an Event: neither it nor its involved object has a name (and 2 more)"}},
	"a list with a malformed item":        {"{\"kind\":\"List\",\"items\":[\n {\"kind\":\"Event\",,},\n " + two + "]}", justTwo, []string{"line 2: not an Event in JSON: invalid character ',' looking for beginning of object key string"}},

	// Other formats.
	"nothing":                  {"", nil, nil},
	"empty lines":              {"\n\r\n  \n", nil, nil},
	"text":                     {"hello\n42\n\nworld\n" + one + "\n", justOne, []string{`line 1: looks like text: "hello" (and 2 more)`}},
	"an HTML page":             {"<!DOCTYPE html>\n<html>\n<body>\nSign in\n</body></html>\n", nil, []string{`line 1: looks like an HTML page, such as a login or error page: "<!DOCTYPE html>" (and 4 more)`}},
	"kubectl's table":          {"LAST SEEN   TYPE     REASON   OBJECT   MESSAGE\n2m   Normal   Pulled   pod/a   x\n", nil, []string{`line 1: looks like the table of kubectl; save Events with -o json or -o yaml: "LAST SEEN   TYPE     REASON   OBJECT   MESSAGE" (and 1 more)`}},
	"logs":                     {"2026-11-29T02:00:00Z\tINFO\tsetup\tstarting\n", nil, []string{`line 1: looks like logs of another program: "2026-11-29T02:00:00Z INFO setup starting"`}},
	"logs in JSON":             {`{"level":"info","ts":1,"msg":"started"}` + "\n" + `{"level":"info","event":"x","type":"y"}` + "\n", nil, []string{`line 1: looks like logs of another program: "{\"level\":\"info\",\"ts\":1,\"msg\":\"started\"}" (and 1 more)`}},
	"logs in logfmt":           {"time=2026-11-29T02:00:00Z level=info msg=started\n", nil, []string{`line 1: looks like logs of another program: "time=2026-11-29T02:00:00Z level=info msg=started"`}},
	"a Deployment":             {"apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  replicas: 1\n", nil, []string{"line 1: not an Event, but Deployment"}},
	"a tar archive":            {"events.json" + strings.Repeat("\x00", 246) + "ustar\x0000" + strings.Repeat("\x00", 300), nil, []string{"looks like a tar archive (extract it first), which is not supported"}},
	"a compressed tar archive": {packed("events.json" + strings.Repeat("\x00", 246) + "ustar\x0000" + strings.Repeat("\x00", 300)), nil, []string{"looks like a tar archive (extract it first), which is not supported"}},
	"an encrypted file":        {"age-encryption.org/v1\n-> X25519 abc\n", nil, []string{"looks like a file encrypted by age, which is not supported"}},
	"a zip archive":            {"PK\x03\x04\x14\x00", nil, []string{"looks like a zip archive, which is not supported"}},
}

func TestInputs(t *testing.T) {
	for name, c := range inputs {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 7, 64 << 10} {
				messages, problems := read(t, c.input, piece)
				if !slices.Equal(messages, c.messages) {
					t.Errorf("in pieces of %d: got Events %q, want %q", piece, messages, c.messages)
				}
				if !slices.Equal(problems, c.problems) {
					t.Errorf("in pieces of %d: got problems\n%q\nwant\n%q", piece, problems, c.problems)
				}
			}
		})
	}
}

// Complete inputs can follow each other in one.
func TestMixedInput(t *testing.T) {
	var all strings.Builder
	var want []string
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		c := inputs[name]
		if c.problems != nil || strings.ContainsAny(c.input, "\x1f\x00") || !utf8.ValidString(c.input) {
			continue
		}
		all.WriteString(strings.TrimRight(c.input, "\n") + "\n")
		if strings.Contains(name, "YAML") {
			all.WriteString("---\n")
		}
		want = append(want, c.messages...)
	}
	got, problems := read(t, all.String(), 100)
	if !slices.Equal(got, want) || problems != nil {
		t.Errorf("got %d Events, want %d; problems %q", len(got), len(want), problems)
	}
}

// A list on one long line is read item by item.
func TestLongLine(t *testing.T) {
	const n = 13_000
	in := `{"kind":"EventList","apiVersion":"v1","items":[` + strings.TrimSuffix(strings.Repeat(bare1+",", n), ",") + "]}\n" + two + "\n" + strings.Repeat("x", 2<<20) + "\n" + one
	messages, problems := read(t, in, 4096)
	if len(messages) != n+2 || len(problems) != 1 || !strings.HasPrefix(problems[0], "line 3: looks like text") {
		t.Errorf("%d Events, problems %.200q", len(messages), problems)
	}
}

func TestReadErrorsAreReturned(t *testing.T) {
	bad := errors.New("disk on fire")
	if _, err := input.TextReader(iotest.ErrReader(bad)); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	for _, size := range []int{5, 40} {
		text, err := input.TextReader(strings.NewReader(packed(one)[:size]))
		if err == nil {
			_, err = io.ReadAll(text)
		}
		var damage *input.CorruptError
		if !errors.As(err, &damage) {
			t.Errorf("gzip truncated after %d bytes: %v", size, err)
		}
	}
}

func TestVisitErrorEndsReading(t *testing.T) {
	enough := errors.New("enough")
	d := input.NewDecoder(func(format.Entry) error { return enough })
	if _, err := d.Write([]byte(one + "\n" + two + "\n")); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

// FuzzDecoder checks that the result does not depend on the pieces.
func FuzzDecoder(f *testing.F) {
	for _, c := range inputs {
		f.Add([]byte(c.input), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		if piece < 1 || piece > 1000 {
			piece = 5
		}
		messages, problems := decode(t, in, piece)
		whole, wholeProblems := decode(t, in, 64<<10)
		if !slices.Equal(messages, whole) || !slices.Equal(problems, wholeProblems) {
			t.Errorf("in pieces of %d: %q %q\nin one piece: %q %q", piece, messages, problems, whole, wholeProblems)
		}
	})
}

// FuzzText checks that reading ends.
func FuzzText(f *testing.F) {
	for _, c := range inputs {
		f.Add([]byte(c.input))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if text, err := input.TextReader(bytes.NewReader(in)); err == nil {
			_, _ = io.CopyN(io.Discard, text, 1<<20)
		}
	})
}
