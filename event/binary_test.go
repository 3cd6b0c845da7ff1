package event

import (
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func roundTrip(t testing.TB, r *Record) Record {
	t.Helper()
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Record
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	checkReader(t, b, &got)
	return got
}

// checkReader checks that a Reader reads want from b after another record.
func checkReader(t testing.TB, b []byte, want *Record) {
	t.Helper()
	full, err := benchRecord(t).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var r Reader
	if _, err := r.Read(full); err != nil {
		t.Fatal(err)
	}
	got, err := r.Read(b)
	if err != nil {
		t.Fatalf("Reader: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("a Reader reads %+v\nwant           %+v", got, want)
	}
}

func TestBinaryRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 6, 14, 5, 43, 48377, time.UTC)
	for _, tt := range []struct {
		name   string
		record Record
	}{
		{"nothing", Record{}},
		{"a position only", Record{Source: "team-a", Position: Position{
			Epoch: Epoch{Cluster: "8d1c9c9e", Restores: 2}, Version: 7, ListVersion: 9, Time: at.Truncate(time.Second),
		}}},
		{"an unknown cluster after a restore", Record{Position: Position{Epoch: Epoch{Restores: 1}}}},
		{"an event", Record{Event: &corev1.Event{Reason: "BackOff"}, Time: at}},
		{"an event without a reason", Record{Event: &corev1.Event{Message: "m"}}},
		{"a decision about labels", Record{Event: &corev1.Event{Reason: "a b"}, Decisions: LabelDecisions{{DefaultLabels, LabelNamespace}}}},
		{"decisions about the maximum of sets", Record{Decisions: LabelDecisions{{1, 1}, {2, 0}, {3, 1}, {4, 4}, {5, 5}, {6, 2}, {7, 0}, {63, 63}}}},
		{"a level", Record{Event: &corev1.Event{Reason: "Preempted"}, Level: LevelCritical}},
		{"attributes", Record{Event: &corev1.Event{}, Attributes: []Pair{{"app", "web"}, {"team", "é\xff"}}}},
		{"a decision about attributes", Record{Decisions: LabelDecisions{{LabelNamespace | LabelAttributes, LabelNamespace}}}},
		{"a bounded time", Record{Event: &corev1.Event{}, Time: at, ObservedTime: at.AddDate(7000, 0, 0)}},
		{"times before 1970", Record{Event: &corev1.Event{}, Time: at.AddDate(-1000, 0, 0)}},
		{"the time 1970", Record{Event: &corev1.Event{}, Time: time.Unix(0, 0).UTC()}},
		{"a gap for one sink", Record{Event: &corev1.Event{Reason: GapReason}, Gap: true, OnlySink: "loki"}},
		{"annotations", Record{Event: &corev1.Event{ObjectMeta: metav1.ObjectMeta{
			Annotations: map[string]string{"a": "1", "b": "2"},
		}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := roundTrip(t, &tt.record); !reflect.DeepEqual(got, tt.record) {
				t.Errorf("got  %+v\nwant %+v", got, tt.record)
			}
		})
	}
}

func TestBinaryIsAppended(t *testing.T) {
	r := Record{Source: "team-a", Event: &corev1.Event{Reason: "BackOff"}}
	alone, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := r.AppendBinary([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != "before"+string(alone) {
		t.Errorf("got %q after other bytes, %q alone", after, alone)
	}
}

func TestBinaryDoesNotKeepItsInput(t *testing.T) {
	r := New(readEvent(t, "testdata/core-recorder-counted"))
	r.Source = "team-a"
	b, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got Record
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	want := everything(t, got)
	clear(b)
	if everything(t, got) != want || got.Source != "team-a" {
		t.Error("the record changed with the buffer it was read from")
	}
}

func TestBinarySkipsUnknownFields(t *testing.T) {
	b, err := (&Record{Source: "team-a"}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	b = appendString(b, 90, "new")
	b = appendUint(b, 91, 5)
	b = append(b, 92<<3&0x7f|5|0x80, 92>>4, 1, 2, 3, 4) // fixed32
	var got Record
	if err := got.UnmarshalBinary(b); err != nil || got.Source != "team-a" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBinaryRejectsDamage(t *testing.T) {
	for _, tt := range []struct {
		name, data, want string
	}{
		{"a cut tag", "\x80", "decode record: unexpected EOF"},
		{"a cut string", "\x0a\x05ab", "decode record: field 1: unexpected EOF"},
		{"a cut event", "\x32\x02\x0a\x05", "decode record: field 6: unexpected EOF"},
		{"an epoch of another form", "\x12\x01x", `decode record: field 2: parse epoch "x": want <uid or ->/<number of restores>`},
		{"half a decision about labels", "\x62\x01\x03", "decode record: field 12: 1 bytes are not decisions about labels"},
		{"too many decisions about labels", "\x62\x12" + strings.Repeat("\x03\x01", 9), "decode record: field 12: 18 bytes are not decisions about labels"},
		{"a decision to keep a label that is not in the set", "\x62\x02\x03\x04", "decode record: field 12: 0304 are not decisions about labels"},
		{"too many nanoseconds", "\x3a\x06\x10\x80\x94\xeb\xdc\x03", "decode record: field 7: timestamp: field 2: 1000000000 nanoseconds are out of range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := new(Record).UnmarshalBinary([]byte(tt.data))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestEpochs(t *testing.T) {
	for _, e := range []Epoch{{}, {Restores: 3}, {Cluster: "8d1c9c9e"}, {Cluster: "8d1c9c9e", Restores: 12}} {
		if got, err := ParseEpoch(e.String()); err != nil || got != e {
			t.Errorf("%q is read as %+v, %v; want %+v", e.String(), got, err, e)
		}
	}
	for _, s := range []string{"", "/", "x", "x/", "/1", "x/-1", "x/y", "x/1/2"} {
		if got, err := ParseEpoch(s); err == nil {
			t.Errorf("%q is read as %+v, want an error", s, got)
		}
	}
}
