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

// lookFor counts the test: as run with a version of the program, as failed, or, if the
// program is missing, with the result without.
func lookFor(t testing.TB, program string, without tally.Result) (Found, bool) {
	t.Helper()
	required, err := requiredPrograms()
	if err != nil {
		t.Fatal(err)
	}
	entry := tally.Entry{Program: program, Test: t.Name()}
	if entry.Package, err = os.Getwd(); err != nil {
		t.Fatal(err)
	}
	found, err := find(t.Context(), program)
	switch {
	case err == nil:
		t.Logf("%s %s: %s", program, found.Version, found.Path)
		entry.Result, entry.Version = tally.Ran, found.Version
	case !errors.Is(err, ErrNotInstalled):
		entry.Result = tally.Failed
	case slices.Contains(required, program):
		entry.Result, err = tally.Failed, fmt.Errorf("%w; %s requires it", err, requireVariable)
	default:
		entry.Result = without
	}
	if err := tally.Append(entry); err != nil {
		t.Fatal(err)
	}
	if entry.Result == tally.Failed {
		t.Fatal(err)
	}
	return found, err == nil
}

// requiredPrograms returns the programs in HINDSIGHT_TEST_REQUIRE, or an error if it
// lists an unknown one.
func requiredPrograms() (required []string, err error) {
	for name := range strings.SplitSeq(os.Getenv(requireVariable), ",") {
		switch name = strings.TrimSpace(name); name {
		case "":
		case "loki", "promtail":
			required = append(required, name)
		default:
			return nil, errors.New(requireVariable + " lists " + name + "; it may list loki and promtail")
		}
	}
	return required, nil
}
