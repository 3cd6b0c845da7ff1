package storage

import (
	"fmt"

	"github.com/hindsight-events/hindsight/event"
)

// storedPositions are positions by source, as they are stored in files.
type storedPositions map[string]event.StoredPosition

var noEpoch = event.Epoch{}.String()

func storePositions(positions map[string]event.Position) storedPositions {
	s := make(storedPositions, len(positions))
	for source, p := range positions {
		s[source] = p.Stored(noEpoch)
	}
	return s
}

func (s storedPositions) restore() (map[string]event.Position, error) {
	positions := make(map[string]event.Position, len(s))
	for source, stored := range s {
		p, err := stored.Position(noEpoch)
		if err != nil {
			return nil, fmt.Errorf("position of source %q: %w", source, err)
		}
		positions[source] = p
	}
	return positions, nil
}
