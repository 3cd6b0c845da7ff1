package event

import (
	"slices"
	"testing"
)

func TestPositionsInOrder(t *testing.T) {
	inOrder := []Position{
		{},
		{Version: 100, Listed: 900},
		{Version: 500, Listed: 700},
		{Version: 500, Listed: 900},
		{Version: 500},
		{Version: 501, Listed: 900},
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
