package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hindsight-events/hindsight/test/cluster/tally"
)

// script writes a program.
func script(t *testing.T, path, body string) string {
	t.Helper()
	write(t, path, "#!/bin/sh\n"+body+"\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// testOfLoki records the result of a test that needs Loki.
type testOfLoki struct {
	testing.TB // nil: methods that are not defined here panic
	skipped    string
	failed     string
}

func (a *testOfLoki) Helper()             {}
func (a *testOfLoki) Name() string        { return "TestThatNeedsLoki" }
func (a *testOfLoki) Logf(string, ...any) {}
func (a *testOfLoki) Fatal(args ...any)   { a.failed = fmt.Sprint(args...); panic(a) }
func (a *testOfLoki) Fatalf(f string, args ...any) {
	a.failed = fmt.Sprintf(f, args...)
	panic(a)
}

func (a *testOfLoki) Skip(args ...any) { a.skipped = fmt.Sprint(args...); panic(a) }
func (a *testOfLoki) Skipf(f string, args ...any) {
	a.skipped = fmt.Sprintf(f, args...)
	panic(a)
}

// runTest runs do until it returns or ends the test.
func runTest(t *testing.T, a *testOfLoki, do func(testing.TB)) {
	t.Helper()
	a.TB = t
	defer func() {
		if end := recover(); end != nil && end != any(a) {
			panic(end)
		}
	}()
	do(a)
}

func TestNeedLoki(t *testing.T) {
	const answer = `echo "loki, version %s (branch: main, revision: 65e30f8)"; echo "  build user: nobody"`
	for name, c := range map[string]struct {
		named   string // HINDSIGHT_TEST_LOKI, with DIR for the test's folder
		inPath  string // the script of loki in PATH, empty for none
		require string

		found, skipped, failed string // parts of the version or of the message
		counted                tally.Result
	}{
		"in PATH": {
			inPath: fmt.Sprintf(answer, "3.7.8"),
			found:  "3.7.8", counted: tally.Ran,
		},
		"named before the one in PATH": {
			named: "DIR/named", inPath: fmt.Sprintf(answer, "3.7.8"),
			found: "2.9.0", counted: tally.Ran,
		},
		"a development build": {
			inPath: fmt.Sprintf(answer, ""),
			found:  "of revision 65e30f8", counted: tally.Ran,
		},
		"none": {
			skipped: "set HINDSIGHT_TEST_LOKI or put it into PATH", counted: tally.Skipped,
		},
		"none, but another is required": {
			require: "promtail",
			skipped: "skipped without loki", counted: tally.Skipped,
		},
		"none, but required": {
			require: "promtail, loki",
			failed:  "HINDSIGHT_TEST_REQUIRE requires it", counted: tally.Failed,
		},
		"an unknown program is required": {
			inPath: fmt.Sprintf(answer, "3.7.8"), require: "lokki",
			failed: "HINDSIGHT_TEST_REQUIRE lists lokki",
		},
		"named but missing": {
			named: "DIR/nowhere/loki", inPath: fmt.Sprintf(answer, "3.7.8"),
			failed: "HINDSIGHT_TEST_LOKI does not name a program", counted: tally.Failed,
		},
		"named by a relative path": {
			named:  "./loki",
			failed: "set an absolute one", counted: tally.Failed,
		},
		"does not run": {
			inPath: "echo no such library; exit 127",
			failed: "does not run: -version: exit status 127: no such library", counted: tally.Failed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			script(t, filepath.Join(dir, "named"), fmt.Sprintf(answer, "2.9.0"))
			if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if c.inPath != "" {
				script(t, filepath.Join(dir, "bin", "loki"), c.inPath)
			}
			t.Setenv("PATH", filepath.Join(dir, "bin"))
			t.Setenv("HINDSIGHT_TEST_LOKI", strings.ReplaceAll(c.named, "DIR", dir))
			t.Setenv(requireVariable, c.require)
			t.Setenv(tally.Variable, filepath.Join(dir, "tally"))
			a := &testOfLoki{}
			var found Found
			runTest(t, a, func(tb testing.TB) { found = NeedLoki(tb) })
			for name, got := range map[string][2]string{
				"version": {found.Version, c.found}, "skips": {a.skipped, c.skipped}, "fails": {a.failed, c.failed},
			} {
				if want := got[1]; (want == "") != (got[0] == "") || !strings.Contains(got[0], want) {
					t.Errorf("%s: %q, want %q", name, got[0], want)
				}
			}
			wantTally(t, filepath.Join(dir, "tally"), c.counted)
		})
	}
}

func wantTally(t *testing.T, path string, want tally.Result) {
	t.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) && want == "" {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := tally.Read(f)
	if err != nil || len(entries) != 1 || entries[0].Result != want || entries[0].Test != "TestThatNeedsLoki" {
		t.Errorf("counted %+v, %v, want one with %q", entries, err, want)
	}
}

func TestWhatRunsPartlyIsNotSkipped(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("HINDSIGHT_TEST_LOKI", "")
	t.Setenv(requireVariable, "")
	t.Setenv(tally.Variable, filepath.Join(dir, "tally"))
	a := &testOfLoki{}
	have := true
	runTest(t, a, func(tb testing.TB) { have = HaveLoki(tb) })
	if have || a.skipped != "" || a.failed != "" {
		t.Errorf("there is a Loki: %t, skips: %q, fails: %q", have, a.skipped, a.failed)
	}
	wantTally(t, filepath.Join(dir, "tally"), tally.Partly)
}

func TestSkipWithout(t *testing.T) {
	for require, want := range map[string]tally.Result{"": tally.Skipped, "loki": tally.Skipped, "loki,npm": tally.Failed} {
		t.Run(require, func(t *testing.T) {
			t.Setenv(requireVariable, require)
			t.Setenv(tally.Variable, filepath.Join(t.TempDir(), "tally"))
			a := &testOfLoki{}
			runTest(t, a, func(tb testing.TB) { SkipWithout(tb, "npm", "npm is not installed") })
			message := a.skipped
			if want == tally.Failed {
				message = a.failed
			}
			if a.skipped != "" && a.failed != "" || !strings.HasPrefix(message, "npm is not installed") {
				t.Errorf("skips: %q, fails: %q, want it %s", a.skipped, a.failed, want)
			}
			wantTally(t, os.Getenv(tally.Variable), want)
		})
	}
}
