package event

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

func TestPositionsInOrder(t *testing.T) {
	inOrder := []Position{
		{},
		{Version: 100, ListVersion: 900},
		{Version: 500, ListVersion: 700},
		{Version: 500, ListVersion: 900},
		{Version: 500},
		{Version: 501, ListVersion: 900},
		{Version: 900},
		{Epoch: Epoch{Restores: 1}, Version: 3}, // a restored etcd counts from an earlier version
		{Epoch: Epoch{Restores: 1, Cluster: "8d1c9c9e"}, Version: 4},
	}
	for i, p := range inOrder {
		for j, q := range inOrder {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%s compared with %s: %d, want %d", p, q, got, want)
			}
		}
	}
	if !slices.IsSortedFunc(inOrder, Position.Compare) {
		t.Error("not in order")
	}
}

func TestLaterOf(t *testing.T) {
	a, b := Position{Epoch: Epoch{Cluster: "a"}, Version: 5}, Position{Epoch: Epoch{Cluster: "b"}, Version: 9}
	later := Position{Epoch: a.Epoch, Version: 6}
	for name, tt := range map[string]struct{ p, q, want Position }{
		"the first":       {later, a, later},
		"the second":      {a, later, later},
		"one is zero":     {Position{}, a, a},
		"the other is":    {a, Position{}, a},
		"of two clusters": {a, b, a},
	} {
		if got := LaterOf(tt.p, tt.q); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func TestStoredPositions(t *testing.T) {
	at := time.Date(2019, 7, 19, 11, 0, 0, 0, time.UTC)
	p := Position{Epoch: Epoch{Cluster: "a", Restores: 2}, Version: 5, ListVersion: 7, Time: at}
	for name, tt := range map[string]struct {
		epoch, json string
		want        Position
	}{
		"of the document's epoch":  {"a/2", `{"version":5,"listed":7,"time":"2019-07-19T11:00:00Z"}`, p},
		"of another epoch":         {"b/0", `{"epoch":"a/2","version":5,"listed":7,"time":"2019-07-19T11:00:00Z"}`, p},
		"without a time":           {"-/0", `{"version":5}`, Position{Version: 5}},
		"zero, in a known cluster": {"a/2", `{"epoch":"-/0"}`, Position{}},
	} {
		b, err := json.Marshal(tt.want.Stored(tt.epoch))
		if err != nil || string(b) != tt.json {
			t.Errorf("%s: got %s, %v; want %s", name, b, err, tt.json)
		}
		var s StoredPosition
		if err := json.Unmarshal([]byte(tt.json), &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := s.Position(tt.epoch); err != nil || got != tt.want {
			t.Errorf("%s: read back as %s, %v; want %s", name, got, err, tt.want)
		}
	}
}

// Earlier versions of the journal stored times as numbers.
func TestStoredTimeAsANumber(t *testing.T) {
	var s StoredPosition
	if err := json.Unmarshal([]byte(`{"version":5,"time":1563534000}`), &s); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2019, 7, 19, 11, 0, 0, 0, time.UTC); !s.Time.Equal(want) || s.Version != 5 {
		t.Errorf("got %+v", s)
	}
}
