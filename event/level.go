package event

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Level is how bad an Event looks to a reader: Loki's detected_level. It is stored, so the
// values must not change.
type Level uint8

const (
	LevelOfType Level = iota // warn for an Event of type Warning, else info
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
	LevelCritical
)

var levelNames = []string{"", "debug", "info", "warn", "error", "critical"}

// parseLevel returns LevelOfType for an unknown name.
func parseLevel(name string) Level { return Level(max(slices.Index(levelNames, name), 0)) }

// SetLevel restores the level that was stored as detected_level.
func (r *Record) SetLevel(detected string) {
	if r.Level = LevelOfType; detected != "" && detected != r.level() {
		r.Level = parseLevel(detected)
	}
}

// level is Loki's detected_level, which Loki would otherwise guess from the line.
func (r *Record) level() string {
	switch {
	case r.Level != LevelOfType:
		return levelNames[r.Level]
	case r.Event.Type == corev1.EventTypeWarning:
		return levelNames[LevelWarn]
	default:
		return levelNames[LevelInfo]
	}
}
