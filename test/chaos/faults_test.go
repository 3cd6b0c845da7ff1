//go:build e2e

package chaos

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
	"github.com/hindsight-events/hindsight/test/program"
	"github.com/hindsight-events/hindsight/test/wait"
)

// fault is a failure to inject. When do returns, all components run again; the
// consequences may take longer.
type fault struct {
	name    string
	calm    bool // all states must have arrived before
	several bool // needs several replicas
	do      func(*scene, *rand.Rand)
}

var faults = []fault{
	{name: "a replica is killed", do: killReplica},
	{name: "the active replica is killed", several: true, do: killLeader},
	{name: "the active replica is stopped for longer than its lease", do: stopLeader},
	{name: "a replica is cut from the API server", do: cutReplica},
	{name: "the active replica is cut from the API server", several: true, do: cutLeader},
	{name: "the API server is killed", do: killAPIServer},
	{name: "the API server hangs", do: hangAPIServer},
	{name: "etcd is compacted short of the positions while no replica watches", calm: true, do: compactShort},
	{name: "etcd is compacted beyond the positions while no replica watches", calm: true, do: compactBeyond},
	{name: "the active replica is killed when it has just declared a gap", calm: true, do: killInGap},
	{name: "a replica restarts with a backlog in its journal", calm: true, do: restartWithBacklog},
	{name: "a store is killed", do: killStore},
	{name: "a store hangs", do: hangStore},
	{name: "the configuration is changed", do: reload},
	{name: "the replicas are replaced one after the other", calm: true, do: roll},
}

// between returns a random duration.
func between(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

func (s *scene) start(r *replica) {
	s.t.Helper()
	if err := r.start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) any(r *rand.Rand) *replica { return s.replicas[r.IntN(len(s.replicas))] }

func killReplica(s *scene, r *rand.Rand) {
	one := s.any(r)
	one.kill()
	s.pause(between(r, 0, 2*time.Second))
	s.start(one)
}

func killLeader(s *scene, r *rand.Rand) {
	leader := s.awaitLeader(nil)
	leader.kill()
	s.pause(between(r, 0, time.Second))
	if s.elects {
		s.awaitLeader(leader)
	}
	s.start(leader)
}

func stopLeader(s *scene, r *rand.Rand) {
	leader := s.awaitLeader(nil)
	process, run, err := leader.running()
	s.must(err)
	if err := process.Pause(); s.ended(process) {
		s.note("%s has ended before it could be stopped", run)
		return
	} else if err != nil {
		s.t.Fatal(err)
	}
	if !s.elects {
		s.pause(between(r, leaseDuration, leaseDuration+3*time.Second))
		s.must(process.Resume())
		return
	}
	s.awaitLeader(leader)
	s.pause(between(r, 0, 2*time.Second))
	before := s.size(run.stdout)
	s.must(process.Resume())
	s.note("%s goes on", leader.name)
	s.until("the deposed replica ends", func() bool { return s.ended(process) })
	// The fence is checked before each batch: one may have passed it already.
	const batch = 64 << 10
	if grown := s.size(run.stdout) - before; grown > batch {
		s.t.Errorf("the deposed replica, %s, has written %d bytes to its standard output, more than a batch", run, grown)
	}
}

func (s *scene) size(path string) int64 {
	s.t.Helper()
	info, err := os.Stat(path)
	s.must(err)
	return info.Size()
}

// cuts are the ways in which a server can be unreachable.
var cuts = []mode{refuses, resets, hangs}

func cutReplica(s *scene, r *rand.Rand) {
	s.cut(s.any(r), cuts[r.IntN(len(cuts))], func() { s.pause(between(r, time.Second, 6*time.Second)) })
}

func cutLeader(s *scene, r *rand.Rand) {
	leader := s.awaitLeader(nil)
	s.cut(leader, cuts[r.IntN(len(cuts))], func() {
		if s.elects {
			s.awaitLeader(leader)
		}
		s.pause(between(r, time.Second, 4*time.Second))
	})
}

// cut separates a replica from the API server while meanwhile runs.
func (s *scene) cut(one *replica, how mode, meanwhile func()) {
	s.t.Helper()
	s.must(one.proxy.set(how))
	s.note("the connection from %s to the API server %s", one.name, how)
	meanwhile()
	s.must(one.proxy.set(passes))
}

func killAPIServer(s *scene, r *rand.Rand) {
	s.cluster.KillAPIServer()
	s.pause(between(r, 0, 4*time.Second))
	s.must(s.cluster.StartAPIServer(s.t.Context()))
}

func hangAPIServer(s *scene, r *rand.Rand) {
	s.must(s.cluster.PauseAPIServer())
	s.pause(between(r, time.Second, 7*time.Second))
	s.must(s.cluster.ResumeAPIServer())
}

// compactShort compacts states that all sinks have. It must cost no list.
func compactShort(s *scene, r *rand.Rand) {
	revision, err := s.cluster.Revision(s.t.Context())
	s.must(err)
	s.awaitWrites(50) // some are newer
	s.settle()
	s.awaitPositions(uint64(revision))
	const listed = `msg="listed events"`
	before := s.count(listed)
	resume := s.away(r)
	s.awaitWrites(200)
	s.must(s.cluster.Compact(s.t.Context(), revision))
	s.note("compacted at version %d", revision)
	resume()
	s.settle()
	if n := s.count(listed) - before; n > 0 {
		s.t.Errorf("Events were listed %d times, but all of them could be watched\n%s", n, s.logs(s.faultBegan()))
	}
}

// count counts a text in the logs of all processes.
func (s *scene) count(text string) (n int) {
	for _, r := range s.replicas {
		for _, run := range r.allRuns() {
			n += strings.Count(run.logText(), text)
		}
	}
	return n
}

// compactBeyond compacts states that no sink has yet. A gap must be declared.
func compactBeyond(s *scene, r *rand.Rand) {
	resume := s.away(r)
	s.awaitWrites(200)
	revision, err := s.cluster.Revision(s.t.Context())
	s.must(err)
	s.awaitWrites(50) // some are newer
	s.compact(revision)
	resume()
}

// compact compacts etcd at a revision from which no replica can resume.
func (s *scene) compact(revision int64) {
	s.t.Helper()
	s.comparison.update(s.t.Context())
	c := compaction{uint64(revision), s.comparison.declared()}
	s.must(s.cluster.Compact(s.t.Context(), revision))
	s.note("compacted at version %d", revision)
	s.compactions = append(s.compactions, c)
}

// killInGap kills the leader after it has declared a gap; it may not have stored
// its new position everywhere.
func killInGap(s *scene, r *rand.Rand) {
	const declared = `msg="events may have been missed"`
	before := s.count(declared)
	compactBeyond(s, r)
	s.until("a gap is declared", func() bool { return s.count(declared) > before })
	s.pause(between(r, 0, time.Second))
	killLeader(s, r)
}

// away makes all replicas miss writes, in a random way.
func (s *scene) away(r *rand.Rand) (resume func()) {
	s.t.Helper()
	switch way := r.IntN(3); way {
	case 2:
		how := cuts[r.IntN(2)] // one that closes connections: data in flight is lost
		for _, one := range s.replicas {
			s.must(one.proxy.set(how))
		}
		s.note("the connection to the API server %s", how)
		return func() {
			for _, one := range s.replicas {
				s.must(one.proxy.set(passes))
			}
		}
	default:
		for _, one := range s.replicas {
			if way == 0 {
				one.kill()
			} else if err := one.terminate(s.t.Context()); err != nil {
				s.t.Error(err)
			}
		}
		return func() {
			for _, one := range s.replicas {
				s.start(one)
			}
		}
	}
}

// restartWithBacklog compacts states that the first replica has in its journal and
// the stores do not have yet. If there is another replica, it leads meanwhile. The
// stores get these states nevertheless.
func restartWithBacklog(s *scene, r *rand.Rand) {
	first, others := s.replicas[0], s.replicas[1:]
	for _, one := range others {
		one.kill()
	}
	s.awaitLeading(first)
	for _, store := range s.stores {
		store.Kill()
	}
	s.note("the stores are killed, %s journals more", first.name)
	from := len(s.ledger.all())
	s.awaitWrites(200)
	backlog := s.ledger.all()[from:]
	s.until("the other sinks have the backlog", func() bool {
		s.comparison.update(s.t.Context())
		return len(s.stdout.missingOf(backlog)) == 0
	})
	first.kill()
	s.awaitWrites(100)
	revision, err := s.cluster.Revision(s.t.Context())
	s.must(err)
	s.awaitWrites(50)
	s.compact(revision)
	if len(others) > 0 {
		s.start(others[0])
		s.awaitLeading(others[0])
	}
	for _, store := range s.stores {
		s.must(store.Start(s.t.Context()))
	}
	if len(others) > 0 {
		s.settle() // with a gap
		for _, store := range s.stores {
			s.note("%d states of the journal of %s are not in %s, because of the gap", len(store.output.missingOf(backlog)), first.name, store.Name())
		}
		others[0].kill()
	}
	s.start(first)
	s.awaitLeading(first)
	for _, store := range s.stores {
		found := newStored(store.Store).output
		missing := slices.Clone(backlog)
		if !wait.Within(s.t.Context(), timeout, func() bool {
			missing = found.look(s.t.Context(), missing)
			return len(missing) == 0
		}) {
			lost := map[*output][]*state{store.output: missing}
			s.t.Fatalf("the backlog in the journal of %s was not delivered (seed %d)\n%s\n%s", first.name, s.seed, s.comparison.describe(lost, s.history), s.logs(earliest(lost)))
		}
	}
	for _, one := range others {
		s.start(one)
	}
}

// awaitWrites waits until n more states were written.
func (s *scene) awaitWrites(n int) {
	s.t.Helper()
	from := len(s.ledger.all())
	s.until("the API server accepts writes", func() bool { return len(s.ledger.all()) >= from+n })
}

func killStore(s *scene, r *rand.Rand) {
	store := s.anyStore(r)
	store.Kill()
	s.pause(between(r, 0, 5*time.Second))
	s.must(store.Start(s.t.Context()))
}

func hangStore(s *scene, r *rand.Rand) {
	store := s.anyStore(r)
	s.must(store.Pause())
	s.pause(between(r, time.Second, 8*time.Second))
	s.must(store.Resume())
}

func (s *scene) anyStore(r *rand.Rand) cluster.Store {
	s.t.Helper()
	store := s.stores[r.IntN(len(s.stores))]
	s.note("the store is %s", store.Name())
	return store
}

// reload changes the configuration of all replicas, as a ConfigMap does.
func reload(s *scene, r *rand.Rand) {
	leader := s.awaitLeader(nil)
	process, run, err := leader.running()
	s.must(err)
	// Before that, SIGHUP would kill it.
	s.until("it reads Events", func() bool { return strings.Contains(run.logText(), `msg="reading events"`) || s.ended(process) })
	reloads := func() int { return strings.Count(run.logText(), "configuration reloaded") }
	before := reloads()
	s.variant++
	s.configure()
	if r.IntN(2) == 0 { // else the file is checked after some seconds
		if err := process.Signal(syscall.SIGHUP); err != nil && !s.ended(process) {
			s.t.Fatal(err)
		}
	}
	s.until("the configuration is in use", func() bool { return reloads() > before || s.ended(process) })
}

func (s *scene) ended(p *program.Program) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// roll replaces all replicas, as a Deployment does.
func roll(s *scene, r *rand.Rand) {
	for _, one := range s.replicas {
		s.must(one.terminate(s.t.Context()))
		s.pause(between(r, 0, time.Second))
		s.start(one)
		s.awaitLeader(nil)
	}
}
