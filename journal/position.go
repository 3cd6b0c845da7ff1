package journal

import (
	"fmt"
	"time"

	"github.com/hindsight-events/hindsight/event"
)

// storedPositions are positions by source, as they are kept in files.
type storedPositions map[string]storedPosition

type storedPosition struct {
	Epoch   string `json:"epoch,omitempty"`
	Version uint64 `json:"version"`
	Listed  uint64 `json:"listed,omitempty"`
	Time    int64  `json:"time,omitempty"` // seconds since 1970
}

func storePositions(positions map[string]event.Position) storedPositions {
	s := make(storedPositions, len(positions))
	for source, p := range positions {
		stored := storedPosition{Version: p.Version, Listed: p.Listed}
		if p.Epoch != (event.Epoch{}) {
			stored.Epoch = p.Epoch.String()
		}
		if !p.Time.IsZero() {
			stored.Time = p.Time.Unix()
		}
		s[source] = stored
	}
	return s
}

func (s storedPositions) restore() (map[string]event.Position, error) {
	positions := make(map[string]event.Position, len(s))
	for source, stored := range s {
		p := event.Position{Version: stored.Version, Listed: stored.Listed}
		if stored.Epoch != "" {
			epoch, err := event.ParseEpoch(stored.Epoch)
			if err != nil {
				return nil, fmt.Errorf("position of source %q: %w", source, err)
			}
			p.Epoch = epoch
		}
		if stored.Time != 0 {
			p.Time = time.Unix(stored.Time, 0).UTC()
		}
		positions[source] = p
	}
	return positions, nil
}
