package cluster

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster/tally"
)

// requireVariable names the environment variable that lists, separated by
// commas, the programs without which tests fail instead of being skipped.
const requireVariable = "HINDSIGHT_TEST_REQUIRE"

// NeedLoki returns the Loki that the test runs against (see FindLoki). Without
// one, it skips the test, or fails it if HINDSIGHT_TEST_REQUIRE lists loki.
func NeedLoki(t testing.TB) Found {
	t.Helper()
	return need(t, "loki")
}

// NeedPromtail is NeedLoki for Promtail.
func NeedPromtail(t testing.TB) Found {
	t.Helper()
	return need(t, "promtail")
}

// HaveLoki is NeedLoki for a test of which a part needs no Loki: it reports whether
// there is one instead of skipping the test.
func HaveLoki(t testing.TB) bool {
	t.Helper()
	_, have := lookFor(t, "loki", tally.Partly)
	return have
}

func need(t testing.TB, program string) Found {
	t.Helper()
	found, have := lookFor(t, program, tally.Skipped)
	if !have {
		t.Skipf("skipped without %s: set %s or put it into PATH (see CONTRIBUTING.md)", program, foundVariable(program))
	}
	return found
}

// CountRan counts a test in the closing line as run with a program that the test has
// found itself.
func CountRan(t testing.TB, program, version string) {
	t.Helper()
	count(t, tally.Entry{Program: program, Version: version, Result: tally.Ran})
}

// SkipWithout skips a test that cannot run without a program, and counts it; reason is
// the complete message. It fails the test if HINDSIGHT_TEST_REQUIRE lists the program.
func SkipWithout(t testing.TB, program, reason string) {
	t.Helper()
	if slices.Contains(requiredPrograms(t), program) {
		count(t, tally.Entry{Program: program, Result: tally.Failed})
		t.Fatalf("%s; %s requires %s", reason, requireVariable, program)
	}
	count(t, tally.Entry{Program: program, Result: tally.Skipped})
	t.Skip(reason)
}

// lookFor counts the test: as run with a version of the program, as failed, or, if the
// program is missing, with the result without.
func lookFor(t testing.TB, program string, without tally.Result) (Found, bool) {
	t.Helper()
	required := requiredPrograms(t)
	found, err := find(t.Context(), program)
	entry := tally.Entry{Program: program, Version: found.Version}
	switch {
	case err == nil:
		t.Logf("%s %s: %s", program, found.Version, found.Path)
		entry.Result = tally.Ran
	case !errors.Is(err, ErrNotInstalled):
		entry.Result = tally.Failed
	case slices.Contains(required, program):
		entry.Result, err = tally.Failed, fmt.Errorf("%w; %s requires it", err, requireVariable)
	default:
		entry.Result = without
	}
	count(t, entry)
	if entry.Result == tally.Failed {
		t.Fatal(err)
	}
	return found, err == nil
}

func count(t testing.TB, entry tally.Entry) {
	t.Helper()
	var err error
	entry.Test = t.Name()
	if entry.Package, err = os.Getwd(); err == nil {
		err = tally.Append(entry)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// requirable are the programs that HINDSIGHT_TEST_REQUIRE may list.
var requirable = []string{"loki", "promtail", "npm", "buildah", "chromium"}

// requiredPrograms returns the programs in HINDSIGHT_TEST_REQUIRE. It fails the test if
// one of them is unknown.
func requiredPrograms(t testing.TB) (required []string) {
	t.Helper()
	for name := range strings.SplitSeq(os.Getenv(requireVariable), ",") {
		switch name = strings.TrimSpace(name); {
		case name == "":
		case slices.Contains(requirable, name):
			required = append(required, name)
		default:
			t.Fatalf("%s lists %s; it may list %s", requireVariable, name, strings.Join(requirable, ", "))
		}
	}
	return required
}
