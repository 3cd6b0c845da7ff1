package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/internal/extsort"
	"github.com/hindsight-events/hindsight/test/fakeapi"
)

// exampleList has Events with all fields and with almost none.
func exampleList() *corev1.EventList {
	now := metav1.NewTime(time.Unix(1563534120, 0).UTC())
	full := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: "ingester-0.15b2", Namespace: "loki", UID: "uid-1", ResourceVersion: "4711", CreationTimestamp: now,
			Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": strings.Repeat("d", 300)},
			ManagedFields: []metav1.ManagedFieldsEntry{
				{Manager: "kube-scheduler", Operation: "Update", APIVersion: "v1", Time: new(metav1.NewTime(now.Add(time.Minute))), FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:count":{}}`)},
				{Manager: "other", Time: &now},
			},
		},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "ingester-0", Namespace: "loki", UID: "uid-2"},
		Reason:         "Preempted", Message: "by team-a/querier-7 on node n", Source: corev1.EventSource{Component: "scheduler", Host: "n"},
		FirstTimestamp: now, LastTimestamp: now, Count: 3, Type: "Warning", EventTime: metav1.NewMicroTime(now.Time),
		Series: &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(now.Time)}, Action: "Preempting",
		Related: &corev1.ObjectReference{Kind: "Node"}, ReportingController: "scheduler", ReportingInstance: "s-0",
	}
	bare := corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "bare", ResourceVersion: "1"}}
	return &corev1.EventList{
		ListMeta: metav1.ListMeta{ResourceVersion: "5000", Continue: "token", RemainingItemCount: new(int64(7))},
		Items:    []corev1.Event{full, bare, full},
	}
}

func protobufList(l *corev1.EventList) []byte {
	return fakeapi.Encode(l, false)
}

// readWhole reads a list into one object.
func readWhole(r io.Reader) (*corev1.EventList, error) {
	var list corev1.EventList
	meta, err := readList(r, func(item []byte) error {
		var e corev1.Event
		if err := e.Unmarshal(item); err != nil {
			return err
		}
		list.Items = append(list.Items, e)
		return nil
	})
	list.ListMeta = meta
	return &list, err
}

// The streaming reader and the decoder of client-go return the same list.
func TestReadList(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]*corev1.EventList{"full": exampleList(), "empty": {ListMeta: metav1.ListMeta{ResourceVersion: "1"}}} {
		body := protobufList(list)
		t.Run(name, func(t *testing.T) {
			want, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &corev1.EventList{})
			if err != nil {
				t.Fatal(err)
			}
			want.(*corev1.EventList).TypeMeta = metav1.TypeMeta{}
			for _, r := range []io.Reader{bytes.NewReader(body), iotest.OneByteReader(bytes.NewReader(body))} {
				got, err := readWhole(r)
				if err != nil {
					t.Fatal(err)
				}
				if a, b := must(got.Marshal()), must(want.(*corev1.EventList).Marshal()); !bytes.Equal(a, b) {
					t.Errorf("got\n%v\nwant\n%v", got, want)
				}
			}
			// A truncated body is never a shorter list.
			for n := range len(body) {
				got, err := readWhole(bytes.NewReader(body[:n]))
				if err == nil && len(got.Items) < len(list.Items) {
					t.Errorf("%d of %d bytes were read as %d of %d items", n, len(body), len(got.Items), len(list.Items))
				}
			}
		})
	}
}

func TestReadListErrors(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	_, err := readList(bytes.NewReader(protobufList(exampleList())), func([]byte) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error of visit became %v", err)
	}
	broken := errors.New("connection reset")
	_, err = readWhole(io.MultiReader(bytes.NewReader(protobufList(exampleList())[:50]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("error of the connection became %v", err)
	}

	for name, test := range map[string]struct{ body, want string }{
		"empty":            {"", "unexpected EOF"},
		"a web page":       {"<html>", "not protobuf"},
		"another kind":     {string(fakeapi.Encode(&metav1.Status{}, false)), `want kind EventList, got "Status"`},
		"no object":        {protobufPrefix, "no object"},
		"two objects":      {protobufPrefix + "\x12\x00\x12\x00", "two objects"},
		"field number 0":   {protobufPrefix + "\x02\x00", "invalid field number"},
		"an enormous item": {protobufPrefix + "\x12\xff\xff\xff\xff\x0f\x12\xff\xff\xff\xff\x07", "exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readWhole(strings.NewReader(test.body))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// A list that both the streaming reader and client-go accept is the same for both.
func FuzzReadList(f *testing.F) {
	f.Add(protobufList(exampleList()))
	f.Add(protobufList(&corev1.EventList{}))
	f.Add([]byte(protobufPrefix + "\x12\x00\x12\x00"))
	codecs := serializer.NewCodecFactory(scheme.Scheme)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readWhole(bytes.NewReader(body))
		if err != nil || !bytes.HasPrefix(body, []byte(protobufPrefix)) {
			return
		}
		// client-go needs the kind if the response has none.
		gvk := corev1.SchemeGroupVersion.WithKind(listKind)
		object, _, err := codecs.UniversalDeserializer().Decode(body, &gvk, &corev1.EventList{})
		if err != nil {
			return // it is stricter about the envelope
		}
		want, ok := object.(*corev1.EventList)
		if !ok {
			return
		}
		if a, b := must(got.Marshal()), must(want.Marshal()); !bytes.Equal(a, b) {
			t.Errorf("got\n%v\nwant\n%v", got, want)
		}
	})
}

// parseMeta agrees with decoding the Event.
func FuzzParseMeta(f *testing.F) {
	for _, e := range exampleList().Items {
		f.Add(must(e.Marshal()))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseMeta(raw, time.Time{})
		if err != nil {
			return
		}
		var e corev1.Event
		if err := e.Unmarshal(raw); err != nil {
			return
		}
		if v := fmt.Sprint(m.version); v != strings.TrimLeft(e.ResourceVersion, "0") {
			t.Errorf("version %s, want %s", v, e.ResourceVersion)
		}
	})
}

func TestParseMeta(t *testing.T) {
	t.Parallel()
	list := exampleList()
	got, err := parseMeta(must(list.Items[0].Marshal()), time.Time{})
	if want := (eventMeta{version: 4711, created: 1563534120, written: 1563534180}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	list.Items[0].ManagedFields = nil
	got, err = parseMeta(must(list.Items[0].Marshal()), time.Time{})
	if want := (eventMeta{version: 4711, created: 1563534120, written: 1563534120}); err != nil || got != want {
		t.Errorf("without managedFields: got %+v, %v; want %+v", got, err, want)
	}
	for _, version := range []string{"", "0", "-1", "seven"} {
		e := corev1.Event{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
		if m, err := parseMeta(must(e.Marshal()), time.Time{}); err == nil {
			t.Errorf("version %q was read as %d", version, m.version)
		}
	}
}

// Stripping does not change the decoded Event.
func FuzzStripManagedFields(f *testing.F) {
	for _, e := range exampleList().Items {
		f.Add(must(e.Marshal()))
	}
	e := exampleList().Items[0]
	e.Annotations, e.ManagedFields = nil, append(e.ManagedFields, metav1.ManagedFieldsEntry{Manager: "no time"})
	f.Add(must(e.Marshal()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseMeta(raw, time.Time{}); err != nil {
			return
		}
		want, wantErr := event.Decode(raw)
		got, err := event.Decode(stripManagedFields(nil, raw))
		if wantErr != nil {
			return // the invalid part may have been stripped
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	})
}

// The content of managedFields is removed, and nothing is allocated.
func TestStripManagedFields(t *testing.T) {
	raw := must(exampleList().Items[0].Marshal())
	fields := "{\"f:count\":{}}"
	stripped := stripManagedFields([]byte("before"), raw)
	if !bytes.HasPrefix(stripped, []byte("before")) || !bytes.Contains(raw, []byte(fields)) {
		t.Fatalf("%q became %q", raw, stripped)
	}
	if bytes.Contains(stripped, []byte(fields)) || bytes.Contains(stripped, []byte("kube-scheduler")) {
		t.Errorf("managedFields are left: %q", stripped)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := parseMeta(raw, time.Time{}); err != nil {
			t.Error(err)
		}
		stripped = stripManagedFields(stripped[:0], raw)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	events := exampleList().Items
	status := fakeapi.Status(410, "too old")
	var body []byte
	body = append(body, fakeapi.EncodeFrame(apiwatch.Added, &events[0], false)...)
	body = append(body, fakeapi.EncodeFrame(apiwatch.Deleted, &events[1], false)...)
	body = append(body, fakeapi.EncodeFrame(apiwatch.Error, status, false)...)
	frames := newFrames(iotest.OneByteReader(bytes.NewReader(body)))
	for i, kind := range []apiwatch.EventType{apiwatch.Added, apiwatch.Deleted} {
		fr, err := frames.next()
		if err != nil || fr.kind != kind {
			t.Fatalf("frame %d is %q: %v", i, fr.kind, err)
		}
		var e corev1.Event
		if err := e.Unmarshal(fr.object); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(must(e.Marshal()), must(events[i].Marshal())) {
			t.Errorf("frame %d: got\n%v\nwant\n%v", i, e, events[i])
		}
	}
	fr, err := frames.next()
	var s metav1.Status
	if err != nil || fr.kind != apiwatch.Error || s.Unmarshal(fr.object) != nil || !reflect.DeepEqual(&s, status) {
		t.Errorf("got %q %v: %v", fr.kind, &s, err)
	}
	if _, err := frames.next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}

	// A truncated body is not a clean end.
	first := len(fakeapi.EncodeFrame(apiwatch.Added, &events[0], false))
	for n := 1; n < first; n++ {
		if _, err := newFrames(bytes.NewReader(body[:n])).next(); err == nil || errors.Is(err, io.EOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

// Only a frame that has been received as a whole is handled together with the one before it.
func TestBufferedFrames(t *testing.T) {
	t.Parallel()
	one := fakeapi.EncodeFrame(apiwatch.Added, &exampleList().Items[0], false)
	for n := range len(one) + 1 { // bytes of the second frame
		frames := newFrames(bytes.NewReader(slices.Concat(one, one[:n])))
		if frames.buffered() {
			t.Fatal("a frame is buffered before anything was read")
		}
		if _, err := frames.next(); err != nil {
			t.Fatal(err)
		}
		if got, want := frames.buffered(), n == len(one); got != want {
			t.Fatalf("with %d of %d bytes: %t", n, len(one), got)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(fakeapi.EncodeFrame(apiwatch.Added, &exampleList().Items[0], false))
	f.Add(fakeapi.EncodeFrame(apiwatch.Error, fakeapi.Status(500, "PrevKv=nil"), false))
	f.Fuzz(func(_ *testing.T, body []byte) {
		frames := newFrames(bytes.NewReader(body))
		for {
			if _, err := frames.next(); err != nil {
				return
			}
		}
	})
}

// BenchmarkReadList reads a page of a typical list, beside client-go.
func BenchmarkReadList(b *testing.B) {
	list := exampleList()
	list.Items[0].Annotations = nil
	for len(list.Items) < 10_000 {
		list.Items = append(list.Items, list.Items[0])
	}
	body := protobufList(list)
	perEvent := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list.Items)), "ns/event")
	}
	b.Run("split", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readList(bytes.NewReader(body), func(item []byte) error {
				_, err := parseMeta(item, time.Time{})
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b)
	})
	b.Run("sorted", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := extsort.Sorter{Dir: b.TempDir()}
			version, stripped := uint64(0), []byte(nil)
			_, err := readList(bytes.NewReader(body), func(item []byte) error {
				version++
				_, err := parseMeta(item, time.Time{})
				stripped = stripManagedFields(stripped[:0], item)
				s.Add(version*7919%10_007, stripped)
				return err
			})
			if err == nil {
				err = s.Drain(func(_ uint64, state []byte) error { return new(corev1.Event).Unmarshal(state) })
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b)
	})
	b.Run("client-go", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &corev1.EventList{}); err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b)
	})
}

// BenchmarkWatch handles frames up to the batcher, beside only decoding the Events.
func BenchmarkWatch(b *testing.B) {
	e := exampleList().Items[0]
	e.Annotations, e.Labels = nil, nil // recorders write neither
	var body []byte
	const n = 10_000
	for i := range n {
		e.ResourceVersion = fmt.Sprint(i + 1)
		body = append(body, fakeapi.EncodeFrame(apiwatch.Modified, &e, false)...)
	}
	perEvent := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
	}
	b.Run("batched", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w := New(Options{Logger: slog.New(slog.DiscardHandler)})
			var done batch
			s := session{Watcher: w, frames: newFrames(bytes.NewReader(body)), delivered: time.Now()}
			for ; s.seen < n; s.seen++ {
				fr, err := s.frames.next()
				if err == nil {
					_, err = s.handleFrame(b.Context(), fr)
				}
				if err != nil {
					b.Fatal(err)
				}
				w.health.contacted()
				if (s.seen+1)%maxBatchRecords == 0 {
					done = w.batcher.nextBatch(done)
					w.batcher.recycle(done.buffers...)
					clear(done.records)
				}
			}
		}
		perEvent(b)
	})
	b.Run("decoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			frames := newFrames(bytes.NewReader(body))
			for range n {
				fr, err := frames.next()
				if err == nil {
					err = new(corev1.Event).Unmarshal(fr.object)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		perEvent(b)
	})
}
