package observe

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/journal"
)

const recording = "../../examples/outage/events.json"

func recorded(t *testing.T) []corev1.Event {
	t.Helper()
	data, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	var list corev1.EventList
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// The bytes that docs/operations.md sizes a journal by are those that the
// recorded outage takes.
func TestSizeOfARecord(t *testing.T) {
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile(`takes (\d+) bytes of disk on average`).FindSubmatch(docs)
	if documented == nil {
		t.Fatal("docs/operations.md does not have the size of a record")
	}
	want, err := strconv.Atoi(string(documented[1]))
	if err != nil {
		t.Fatal(err)
	}
	events := recorded(t)
	records := make([]event.Record, len(events))
	for i := range events {
		records[i] = event.New(&events[i])
		records[i].Position.Version = uint64(i + 1)
	}
	j, err := journal.Open(t.TempDir(), journal.Options{MaxBytes: 1 << 30, Consumers: []journal.ConsumerOptions{{Name: "sink"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if got := int(j.Stats().Bytes) / len(records); got < want*9/10 || got > want*11/10 {
		t.Errorf("a record takes %d bytes, docs/operations.md has %d", got, want)
	}
}
