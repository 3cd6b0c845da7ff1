package router

import "github.com/hindsight-events/hindsight/event"

// Levels select the Events of each level. An Event that several of them match has the worst of
// these levels; one that none matches has that of its type.
type Levels struct {
	Critical Selectors `yaml:"critical"`
	Error    Selectors `yaml:"error"`
	Warn     Selectors `yaml:"warn"`
	Info     Selectors `yaml:"info"`
	Debug    Selectors `yaml:"debug"`
}

// defaultWarn selects Events of type Normal that report what a person looks for when something is
// wrong: a pod or container is killed, a node fails, a pod cannot start. It names what Kubernetes
// 1.36 writes, and NodeControllerEviction.
var defaultWarn = []string{
	// Killed: by the scheduler for another pod, with the node, after activeDeadlineSeconds, by a
	// taint, by the kubelet. "Cancelling deletion" has the reason of the taint managers too.
	`{reason=~"Preempted|NodeControllerEviction|DeletingAllPods|DeadlineExceeded"}`,
	`{reason=~"TaintManagerEviction|DeviceTaintManagerEviction", message=~"Marking for deletion.*"}`,
	`{reason="Killing", message=~"Container .+ failed (liveness|startup) probe.*"}`,
	// Nodes.
	`{reason=~"NodeNotReady|NodeHasInsufficientMemory|NodeHasDiskPressure|NodeHasInsufficientPID|CIDRNotAvailable|CIDRAssignmentFailed"}`,
	// Cannot start: the image cannot be pulled, or no volume is available.
	`{reason=~"BackOff|FailedBinding"}`,
}

// DefaultLevels returns the levels of a configuration without any.
func DefaultLevels() (l Levels) {
	for _, text := range defaultWarn {
		s, err := ParseSelector(text)
		if err != nil {
			panic(err) // a test parses them
		}
		l.Warn = append(l.Warn, s)
	}
	return l
}

// of returns the level of an Event.
func (l *Levels) of(r *event.Record) event.Level {
	switch {
	case l.Critical.Any(r):
		return event.LevelCritical
	case l.Error.Any(r):
		return event.LevelError
	case l.Warn.Any(r):
		return event.LevelWarn
	case l.Info.Any(r):
		return event.LevelInfo
	case l.Debug.Any(r):
		return event.LevelDebug
	default:
		return event.LevelOfType
	}
}
